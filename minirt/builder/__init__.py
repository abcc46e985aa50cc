"""Images from Dockerfiles: what each instruction means, and the layers it makes."""
