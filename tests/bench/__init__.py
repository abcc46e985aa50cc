"""Ratios to peers, measured in one run: ``make bench``."""
