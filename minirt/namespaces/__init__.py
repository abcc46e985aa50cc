"""Namespaces and the file system a container sees: mounts, /dev, masks, pivot_root."""
