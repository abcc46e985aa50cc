"""Exec, attach and port-forward: bytes both ways, over WebSocket or SPDY/3.1, by one-shot URLs."""
