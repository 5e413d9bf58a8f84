"""Random and table-driven comparison of a sidecar with a direct server (see mixer.py)."""
