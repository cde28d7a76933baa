from __future__ import annotations

import pytest
from dispatching import Recording


@pytest.fixture
def dispatcher():
    return Recording()


@pytest.fixture
def heard():
    return []
