"""Images: references, registries, the content store, layers and snapshots."""
