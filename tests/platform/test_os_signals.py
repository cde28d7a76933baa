"""What SIGTERM does here; what the handlers do is in system/test_exits.py and system/test_stopping.py."""

from __future__ import annotations

import signal

from ipevents._core.stopping import Handler
from ipevents._platform import os_signals


def test_what_sigterm_does_is_told_from_the_handler():
    found = {}
    previous = signal.getsignal(signal.SIGTERM)
    try:
        for installed in (os_signals._on_terminate, lambda *_: None, signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, installed)
            found[installed] = os_signals.term_handler()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert list(found.values()) == [Handler.OURS, Handler.USERS, Handler.DEFAULT, Handler.IGNORED]
