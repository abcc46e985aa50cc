"""The OCI runtime: a spec becomes a plan, a plan becomes a process. It knows nothing of the CRI."""

VERSION = "1.2.0"
"""Of the runtime specification."""
