"""Sessions: reading a client's requests and deciding where each goes."""
