"""How long links have owed replies. Nothing of it is seen from Python."""
