"""Dispatchers that note what they are told, for tests."""

from __future__ import annotations

import pytest
from dispatching import Recording


@pytest.fixture
def dispatcher():
    return Recording()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def other():
    return Recording()
