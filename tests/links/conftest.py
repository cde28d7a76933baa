from __future__ import annotations

import pytest
from sending import Sending


@pytest.fixture
def sending():
    made = Sending()
    yield made
    made.close()
