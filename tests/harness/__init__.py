"""What the tests share: real servers, raw sockets, reference decoders, faults, certificates."""
