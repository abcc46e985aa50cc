"""The OCI runtime: a spec becomes a plan, a plan becomes a process. It knows nothing of the CRI."""
