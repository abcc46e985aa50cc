"""The CRI over gRPC."""
