def slot(key: bytes) -> int:
    """The slot of a key."""
