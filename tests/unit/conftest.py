"""Hypothesis for a machine that may be busy: no deadline for one example, nothing kept between runs."""

from hypothesis import settings

settings.register_profile("minirt", deadline=None, database=None)
settings.load_profile("minirt")
