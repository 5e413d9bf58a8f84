"""Everything about TLS: contexts from settings, handshakes, certificate files, what goes wrong."""
