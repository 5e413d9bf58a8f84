"""Gives a cluster's client its replies in its own order. Nothing of it is seen from Python."""
