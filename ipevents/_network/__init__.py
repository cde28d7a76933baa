"""The public socket: this process as a server, or as the client of one."""
