"""Listens at the port that it is given, until SIGTERM."""

import sys

from ipevents import ipem

ipem.options(socket={"port": int(sys.argv[1])}).start()
ipem.run()
