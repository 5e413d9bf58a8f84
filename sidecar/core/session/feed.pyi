"""Reading a client's requests, one after the other."""
