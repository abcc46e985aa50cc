"""The processes that hold containers: zygote, one shim a sandbox, and what they say to each other."""
