"""Requests that a cluster has redirected. Nothing of it is seen from Python."""
