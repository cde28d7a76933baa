"""How a connection to another process comes about: sockets, files, keys, handshakes, byte streams."""
