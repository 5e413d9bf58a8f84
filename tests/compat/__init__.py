"""Differential tests: the same bytes sent straight to a server and through the sidecar."""
