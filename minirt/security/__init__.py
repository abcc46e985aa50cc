"""Capabilities, rlimits, no_new_privs."""
