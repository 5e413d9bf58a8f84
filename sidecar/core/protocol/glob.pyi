def matches(pattern: bytes, key: bytes) -> bool:
    """Whether a key fits a pattern, as KEYS and ACL patterns of the server have it."""
