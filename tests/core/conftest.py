"""Hypothesis for the core's tests: no deadline, since sanitizers and busy machines are slow."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
