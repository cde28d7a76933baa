from __future__ import annotations

import pytest
from lives import KEY

from ipevents import Emitter


@pytest.fixture
def emitter(port):
    return Emitter().options(socket={"port": port, "host": "127.0.0.1", "authkey": KEY})
