"""The near cache's connections, hot keys and warm start."""
