from __future__ import annotations

import signal
import threading

import pytest

from ipevents._processes.preparation import is_starting, missing_options, quiet_start


def test_a_quiet_start_blocks_ctrl_c_in_its_own_thread_only():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not is_starting()
    with quiet_start():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert is_starting()
        found = []
        thread = threading.Thread(target=lambda: found.append(is_starting()))
        thread.start()
        thread.join()
        assert found == [False]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert not is_starting()


def test_options_of_the_interpreter_that_multiprocessing_does_not_pass_on_are_added():
    line = ["python", "-X", "dev", "-X", "utf8=1", "-c", "code"]
    given = {"dev": True, "utf8": "1", "own": True, "pycache_prefix": "/a"}
    assert missing_options(line, given, ["python"]) == ["-X", "own", "-X", "pycache_prefix=/a"]
    assert missing_options(line, {"dev": True}, ["python", "script.py"]) == []


@pytest.mark.parametrize(
    ("typed", "is_unbuffered"),
    [
        (["-u", "script.py"], True),
        (["-Bu", "-c", "code"], True),
        (["-W", "ignore", "-Xdev", "-uO", "-m", "module"], True),
        (["--check-hash-based-pycs", "always", "-u", "x"], True),
        (["-c", "-u"], False),
        (["-Wu", "script.py", "-u"], False),
        (["-X", "u", "script.py"], False),
        (["-mu", "-u"], False),
        (["-", "-u"], False),
        ([], False),
    ],
)
def test_unbuffered_streams_are_passed_on(typed, is_unbuffered):
    assert missing_options(["python"], {}, ["python", *typed]) == (["-u"] if is_unbuffered else [])
