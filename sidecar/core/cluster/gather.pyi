"""Splits a request over several slots. Nothing of it is seen from Python."""
