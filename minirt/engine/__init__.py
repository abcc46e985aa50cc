"""Sandboxes, containers and images: the two floors that everything above stands on."""
