"""The near cache: what it holds, what it serves, and what it reads."""
