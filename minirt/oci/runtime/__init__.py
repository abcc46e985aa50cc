"""``minirt-oci``: the OCI runtime command that podman, docker and containerd can call in place of runc."""
