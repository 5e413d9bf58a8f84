"""Notes of commands that the audit stream is to record (for other Cython modules only)."""
