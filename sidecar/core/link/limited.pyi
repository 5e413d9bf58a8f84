"""How much a session may have in flight on a shared link. Nothing of it is seen from Python."""
