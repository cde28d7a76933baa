"""Tables of cases of a test: which of them run always, and which only with all others (the mark ``slow``)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """A case that shows for certainty what others show, too."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


def diagonal(*columns: Iterable[Any] | Mapping[str, Any]) -> list[Any]:
    """All combinations of the columns' values; but slow are those that show no value for the first time.

    A column with names for its values is a mapping.
    """
    named = [
        list(column.items()) if isinstance(column, Mapping) else [(None, value) for value in column]
        for column in columns
    ]
    rows = max(map(len, named))
    first = {tuple(row % len(column) for column in named) for row in range(rows)}
    cases = []
    for place in itertools.product(*(range(len(column)) for column in named)):
        chosen = [column[index] for column, index in zip(named, place, strict=True)]
        words = [str(value) if name is None else name for name, value in chosen]
        marks = [] if place in first else [pytest.mark.slow]
        cases.append(pytest.param(*(value for _, value in chosen), id="-".join(words), marks=marks))
    return cases
