"""What a forked child takes over from its starter: how it is read, told apart, and applied."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._processes import moment
from tests.starters import in_child


@given(st.sets(st.integers(1, 64)))
def test_the_numbers_in_a_mask_are_its_bits(numbers):
    mask = f"{sum(1 << (number - 1) for number in numbers):016x}"
    assert moment.numbers_in(mask) == tuple(sorted(numbers))


def here() -> moment.Moment:
    return moment.now(moment.status())


def test_now_is_what_the_process_has():
    found = here()
    umask = os.umask(0)
    os.umask(umask)
    assert found.umask == umask
    assert found.environment == dict(os.environb)
    assert set(found.blocked) == set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert signal.SIGPIPE in found.ignored  # as in each Python
    assert dict(found.limits)[resource.RLIMIT_NOFILE] == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_the_name_of_a_process_may_end_in_the_middle_of_a_letter():
    def named():
        before = here()
        with open("/proc/self/comm", "wb") as file:
            file.write("größenvergleich".encode()[:3])
        assert here() == before

    in_child(named)


def test_what_is_applied_is_what_is_found_then():
    def changed():
        wanted = here()._replace(
            environment={**os.environb, b"NEW": b"\xff", b"TZ": b"Asia/Kathmandu"},
            umask=0o137,
            blocked=(int(signal.SIGUSR1),),
            ignored=(*here().ignored, int(signal.SIGUSR2)),
        )
        moment.apply(wanted)
        again = here()
        assert again._replace(ignored=sorted(again.ignored)) == wanted._replace(
            ignored=sorted(wanted.ignored)
        )
        assert os.environ["NEW"] == "\udcff"
        assert time.tzname == ("+0545", "+0545")
        moment.apply(wanted._replace(environment={b"ONLY": b"1"}, ignored=()))
        assert dict(os.environ) == {"ONLY": "1"}
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # Python's own

    in_child(changed)


def test_handlers_that_the_interpreter_has_set_stay():
    def unchanged():
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        moment.apply(here())
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before

    in_child(unchanged)


def test_a_fingerprint_stays_the_same_from_thread_to_thread():
    found = [moment.fingerprint_now()]
    thread = threading.Thread(target=lambda: found.append(moment.fingerprint_now()))
    thread.start()
    thread.join()
    assert found[0] == found[1]


def hard_limit(number: int) -> int:
    return resource.getrlimit(number)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda: os.nice(1),
        lambda: os.setsid(),
        lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, hard_limit(resource.RLIMIT_STACK))),
        lambda: os.environ.update(PYTHONHASHSEED="7"),
        lambda: os.environ.update(LD_PRELOAD=""),
        lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    ],
    ids=["niceness", "session", "hard limit", "stack", "PYTHON", "LD", "scheduler"],
)
def test_what_a_fork_cannot_give_back_changes_the_fingerprint(change):
    def differs():
        if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 1))  # only root may, and only root has come so far
        before = moment.fingerprint_now()
        change()
        assert moment.fingerprint_now() != before

    in_child(differs)


def test_an_ordinary_variable_does_not_change_the_fingerprint(monkeypatch):
    before = moment.fingerprint_now()
    monkeypatch.setenv("ORDINARY", "1")
    assert moment.fingerprint_now() == before


def test_surroundings_are_those_of_any_thread_of_the_same_place():
    pid = os.getpid()
    assert moment.surroundings("self", pid) == moment.surroundings(pid, threading.get_native_id())
    assert moment.surroundings(pid, pid) != moment.surroundings(pid, 1)  # that is no thread of it


@pytest.mark.parametrize("name", ["COVERAGE_PROCESS_START", "COV_CORE_SOURCE"])
def test_where_each_process_is_measured_no_server_serves(monkeypatch, name):
    assert moment.unfit_now() is None
    monkeypatch.setenv(name, "x")
    assert name in moment.unfit_now()


def test_without_proc_there_is_no_server_as_long_as_it_is_away(monkeypatch):
    monkeypatch.setattr(moment, "_STATUS", "/nowhere")
    assert "/proc" in moment.unfit_now()
    monkeypatch.undo()
    assert moment.unfit_now() is None


def test_a_frozen_program_has_no_server(monkeypatch):
    assert moment.unfit() is None
    monkeypatch.setattr(moment.sys, "frozen", True, raising=False)
    assert "frozen" in moment.unfit()


def test_without_pidfds_there_is_no_server(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert "pidfd" in moment.unfit()
