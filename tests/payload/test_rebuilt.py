"""What a process rebuilds without cloudpickle; that it is the same as before is in test_by_value.py."""

from __future__ import annotations

import subprocess
import sys

import cloudpickle
import pytest

from ipevents._payload import by_value
from ipevents._payload.by_value import dumps

SCRIPT = """
import json, threading

N = 3

def helper(n): return n * N

def outer(n):
    "Says what it does."
    seen = []
    def work(k, *, more=1):
        if k:
            return work(k - 1, more=more)  # a closure that has itself in it
        seen.append(threading.current_thread() is threading.main_thread())
        return json.dumps([helper(n), more, seen])
    work.mark = "m"
    return work

def unbound():
    def work(): return never
    return work
    never = 1
"""

LOADING = """
import sys
sys.path[:] = {path!r}
from ipevents._payload import rebuilt
import pickle
function = pickle.loads({data!r})
{check}
print("cloudpickle" in sys.modules)
"""


@pytest.fixture
def script():
    namespace = {"__name__": "__main__"}
    exec(SCRIPT, namespace)
    return namespace


def loaded(value, check):
    program = LOADING.format(path=sys.path, data=dumps(value), check=check)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_functions_closures_and_modules_need_no_cloudpickle(script):
    check = "print(function(2, more=4), function.mark, function.__qualname__, function.__kwdefaults__)"
    assert loaded(script["outer"](5), check) == ["[15, 4, [true]] m outer.<locals>.work {'more': 1}", "False"]


def test_a_variable_without_a_value_stays_without(script):
    check = "try: function()\nexcept NameError as error: print(type(error).__name__)"
    assert loaded(script["unbound"](), check) == ["NameError", "False"]


def test_a_class_is_rebuilt_by_cloudpickle(script):
    exec("class Thing:\n    def get(self): return N", script)
    assert loaded(script["Thing"], "print(function().get())") == ["3", "True"]


def test_what_cloudpickle_reduces_in_another_way_is_left_to_it(script, monkeypatch):
    real = cloudpickle.Pickler.reducer_override

    def other(pickler, value):
        reduced = real(pickler, value)
        if type(reduced) is tuple and reduced[0] is by_value._private._make_function:
            reduced[2][1].pop("_cloudpickle_submodules")
            reduced = (*reduced[:5], set_other)
        return reduced

    monkeypatch.setattr(cloudpickle.Pickler, "reducer_override", other)
    assert b"rebuilt\x94\x8c\rmake_function" not in dumps(script["helper"])


def set_other(function, state):
    """Never called: only its name is pickled."""
