"""cgroup v2: the tree, limits, usage, events, kill."""
