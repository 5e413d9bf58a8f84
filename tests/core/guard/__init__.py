"""Tests of what restricts clients."""
