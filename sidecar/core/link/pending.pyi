"""Pending queues and the splitting of replies; nothing for Python."""
