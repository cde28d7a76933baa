"""Sockets, files, keys, handshakes, byte streams."""
