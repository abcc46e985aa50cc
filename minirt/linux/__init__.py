"""Thin bindings to the kernel: no policy, the syscalls' own names, every change through the journal."""
