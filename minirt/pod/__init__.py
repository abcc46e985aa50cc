"""The sandbox: what the containers of a pod share, and who keeps it."""
