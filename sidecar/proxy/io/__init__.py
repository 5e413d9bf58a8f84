"""Sockets of the data plane: Cython shells around the core."""
