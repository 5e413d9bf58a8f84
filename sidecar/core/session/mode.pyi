"""Which link a session uses, and what is open on it."""
