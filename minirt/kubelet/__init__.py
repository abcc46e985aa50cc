"""The tiny kubelet: pod manifests, the pod worker, volumes, restarts."""
