from __future__ import annotations

import contextlib
import copy
import enum
import os
import pickle
import re
from decimal import Decimal
from fractions import Fraction
from multiprocessing.process import AuthenticationString
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents import _options
from ipevents._exceptions import OptionsError
from ipevents._options import Options, child_options, seconds

KEY = b"sixteen bytes!!!"
NAN = float("nan")
INFINITY = float("inf")

DEFAULTS = {
    "restart": True,
    "delay_restart": 1.0,
    "max_restarts": None,
    "use_socket": True,
    "stop_timeout": 8.0,
    "stop_grace": 1.0,
    "leave_timeout": None,
    "hang_timeout": None,
    "start_method": os.environ.get("IPEVENTS_START") or "forkserver",
    "socket_path": None,
    "port": 7100,
    "host": "localhost",
    "reconnect": True,
    "delay_reconnect": 3.0,
    "only_connect": False,
    "allow_remote": False,
    "forwarded": False,
    "resume_within": 30.0,
    "dead_after": 30.0,
    "authkey": None,
    "max_message": 16 * 1024 * 1024,
    "max_links": 1024,
}
NUMBERS = [-1, -0.001, NAN, INFINITY, -INFINITY, 2**31, 10**400, True, False, "1000", None, [], 1j]
# name, attribute, {right value: what it becomes}, wrong values
FIELDS = [
    ("restart", "restart", [(True, True), (False, False), ("on-failure", "on-failure")],
     [None, 0, 1, "always", "", "on_failure", []]),
    ("delayRestart", "delay_restart", [(0, 0.0), (1, 0.001), (2500.5, 2.5005), (2**31 - 1, 2147483.647)],
     NUMBERS),
    ("maxRestarts", "max_restarts", [(None, None), (1, 1), (2**63, 2**63), (10**400, 10**400)],
     [0, -1, 1.0, NAN, True, False, "3"]),
    ("useSocket", "use_socket", [(True, True), (False, False)], [None, 0, 1, "yes"]),
    ("stopTimeout", "stop_timeout", [(0, 0.0), (8000, 8.0)], NUMBERS),
    ("stopGrace", "stop_grace", [(0, 0.0), (1500, 1.5)], NUMBERS),
    ("leaveTimeout", "leave_timeout", [(None, None), (0, 0.0), (2500, 2.5)],
     [number for number in NUMBERS if number is not None]),
    ("hangTimeout", "hang_timeout", [(None, None), (0, None), (100, 0.1), (2500, 2.5)],
     [1, 99.9, *(number for number in NUMBERS if number is not None)]),
    ("startMethod", "start_method", [("spawn", "spawn"), ("forkserver", "forkserver")],
     ["fork", "Spawn", "", None, True]),
    ("socket.socketPath", "socket_path",
     [(None, None), ("/tmp/x", "/tmp/x"), (Path("/tmp/x"), "/tmp/x"), ("/" + "x" * 102, "/" + "x" * 102)],
     ["", "/" + "x" * 107, "/" + "\u00e4" * 54, "a\0b", "\ud800", b"/tmp/x", Path("/" + "x" * 107), 7100,
      True]),
    ("socket.port", "port", [(1, 1), (65535, 65535)], [0, -1, 65536, 7100.0, "7100", None, True]),
    ("socket.host", "host", [("::1", "::1")], ["", None, b"localhost", 1, "a\0b"]),
    ("socket.reconnect", "reconnect", [(True, True), (False, False)], [None, 0, 1]),
    ("socket.delayReconnect", "delay_reconnect", [(0, 0.0), (3000, 3.0)], NUMBERS),
    ("socket.onlyConnect", "only_connect", [(True, True), (False, False)], [None, 0, 1]),
    ("socket.allowRemote", "allow_remote", [(True, True), (False, False)], [None, 0, 1]),
    ("socket.forwarded", "forwarded", [(True, True), (False, False)], [None, 0, 1]),
    ("socket.resumeWithin", "resume_within", [(0, 0.0), (3000, 3.0)], NUMBERS),
    ("socket.deadAfter", "dead_after", [(0, 0.0), (3000, 3.0)], NUMBERS),
    ("socket.authkey", "authkey",
     [(None, None), (KEY, KEY), (bytearray(KEY), KEY), (KEY.decode(), KEY), ("\u00e4" * 8, b"\xc3\xa4" * 8)],
     [b"", "", b"x" * 15, "x" * 15, 16, True, [1] * 16, "\ud800" * 16]),
    ("socket.maxMessage", "max_message", [(1024, 1024), (2**31 - 1, 2**31 - 1)],
     [1023, 0, -1, 2**31, 1e6, NAN, None, True, "16M"]),
    ("socket.maxLinks", "max_links", [(1, 1), (1024, 1024), (2**63, 2**63)],
     [0, -1, 10.0, NAN, None, True, False, "10"]),
]  # fmt: skip
RIGHT = [(name, attribute, *pair) for name, attribute, right, _ in FIELDS for pair in right]
WRONG = [(name, value) for name, _, _, wrong in FIELDS for value in wrong]
LATER = ["restart", "delayRestart", "maxRestarts", "stopTimeout", "stopGrace", "leaveTimeout", "hangTimeout"]


def values(options: Options) -> dict[str, object]:
    return {attribute: getattr(options, attribute) for attribute in DEFAULTS}


def given_as(name: str, value: object) -> dict[str, object]:
    """The keywords a user writes for one field of the table."""
    outer, _, field = name.partition(".")
    return {outer: {field: value}} if field else {name: value}


def setting(name: str, value: object, *, started: bool = False, base: Options | None = None) -> Options:
    return (base or Options()).merged(None, given_as(name, value), started=started)


class Port(enum.IntEnum):
    """A whole number with a name."""

    OURS = 7200


# Numbers that are neither int nor float, and what they become.
TIMES = [
    (np.float32(0.5), 0.5),
    (np.float64(2.5), 2.5),
    (np.int64(3), 3.0),
    (np.uint8(255), 255.0),
    (Fraction(1, 4), 0.25),
    (Decimal("0.125"), 0.125),
    (Port.OURS, 7200.0),
    (5e-324, 5e-324),
    (-0.0, 0.0),
]
NO_TIMES = [
    np.bool_(True),
    np.array([1.0]),
    np.complex64(1),
    Decimal("sNaN"),
    np.float64("nan"),
    Decimal("nan"),
]


class Nasty(float):
    """A number that cannot be had."""

    def __float__(self):
        raise ZeroDivisionError


# Values.


def test_the_defaults_are_those_of_the_design():
    assert values(Options()) == DEFAULTS


@pytest.mark.parametrize(("name", "attribute", "value", "becomes"), RIGHT)
def test_a_right_value_is_converted_and_changes_nothing_else(name, attribute, value, becomes):
    merged = values(setting(name, value))
    assert merged == {**DEFAULTS, attribute: becomes}
    assert type(merged[attribute]) is type(becomes)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_with_the_name_and_what_is_right(name, value):
    with pytest.raises(OptionsError, match=f"^option '{name}' must be .+, not "):
        setting(name, value)


@pytest.mark.parametrize(
    "name",
    ["delayRestart", "stopTimeout", "socket.delayReconnect", "socket.resumeWithin", "socket.deadAfter"],
)
@pytest.mark.parametrize(("value", "becomes"), TIMES)
def test_any_real_number_is_a_time(name, value, becomes):
    (given,) = set(values(setting(name, value)).items()) - set(DEFAULTS.items())
    assert given[1] == becomes / 1000
    assert type(given[1]) is float


@pytest.mark.parametrize(("value", "becomes"), TIMES)
def test_any_real_number_is_a_timeout(value, becomes):
    assert seconds(value) == becomes
    assert type(seconds(value)) is float


@pytest.mark.parametrize("value", [*NO_TIMES, Nasty(1)])
def test_what_is_no_real_number_is_no_time(value):
    with pytest.raises(OptionsError, match="must be a number of milliseconds from 0 to 2147483647, not "):
        setting("delayRestart", value)
    with pytest.raises((TypeError, ValueError), match="number of seconds from 0 on"):
        seconds(value)


@pytest.mark.parametrize("value", [2**31, 10**400, 1e308, INFINITY, Fraction(10**400), Decimal("1e400")])
def test_a_longer_timeout_than_anybody_lives_is_for_ever(value):
    assert seconds(value) == 2.0**31
    with pytest.raises(ValueError, match="from 0 on"):
        seconds(-value)


@pytest.mark.parametrize("value", [np.int64(7200), np.uint16(7200), Port.OURS])
@pytest.mark.parametrize(
    ("name", "attribute"),
    [("socket.port", "port"), ("socket.maxMessage", "max_message"), ("maxRestarts", "max_restarts")],
)
def test_any_whole_number_is_one(name, attribute, value):
    converted = getattr(setting(name, value), attribute)
    assert converted == 7200
    assert type(converted) is int


@pytest.mark.parametrize("value", [np.float64(7200), Fraction(7200), Decimal(7200), 7200.0, np.bool_(True)])
@pytest.mark.parametrize("name", ["socket.port", "socket.maxMessage", "maxRestarts"])
def test_what_only_looks_like_a_whole_number_is_none(name, value):
    with pytest.raises(OptionsError, match="must be a whole number"):
        setting(name, value)


def test_every_field_is_tried_in_these_tests():
    assert [attribute for _, attribute, _, _ in FIELDS] == list(DEFAULTS)
    assert set(Options.__slots__) == set(DEFAULTS)


def test_a_wrong_value_is_shown():
    with pytest.raises(OptionsError) as caught:
        setting("socket.port", "7100")
    assert str(caught.value) == "option 'socket.port' must be a whole number from 1 to 65535, not '7100'"


def test_a_wrong_value_whose_repr_raises_is_refused_like_others():
    class Nasty:
        def __repr__(self):
            raise RuntimeError("no")

    with pytest.raises(OptionsError, match="option 'restart' must be .* not <Nasty object"):
        setting("restart", Nasty())


def test_a_wrong_value_with_an_endless_repr_is_shown_in_part():
    with pytest.raises(OptionsError) as caught:
        setting("restart", "x" * 10**6)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["3", b"3", True, [], 3j])
def test_a_timeout_is_a_number(value):
    with pytest.raises(TypeError, match=rf"number of seconds.*, not {re.escape(repr(value))}"):
        seconds(value)


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("-inf")])
def test_a_timeout_is_not_negative(value):
    with pytest.raises(ValueError, match=f"number of seconds from 0 on.*, not {value}"):
        seconds(value)


@pytest.mark.parametrize(("value", "expected"), [(None, None), (0, 0.0), (1.5, 1.5), (True + 1, 2.0)])
def test_seconds_stay_what_they_are(value, expected):
    assert seconds(value) == expected


@pytest.mark.parametrize("value", [float("inf"), 1e300, 10**400])
def test_a_time_without_end_is_one_that_the_system_can_wait(value):
    assert seconds(value) == 2.0**31
    assert seconds(value, 5.0) == 5.0


def test_fork_is_refused_with_the_reason():
    with pytest.raises(
        OptionsError, match="\"fork\" copies a process whose threads hold locks.*, not 'fork'"
    ):
        setting("startMethod", "fork")


def test_a_key_of_multiprocessing_becomes_plain_bytes():
    assert type(setting("socket.authkey", AuthenticationString(KEY)).authkey) is bytes


def test_a_subclass_of_a_plain_type_becomes_the_plain_type():
    class Port(int):
        pass

    class Host(str):
        pass

    assert type(setting("socket.port", Port(80)).port) is int
    assert type(setting("socket.host", Host("h")).host) is str


@given(st.integers(0, 2**31 - 1) | st.floats(0, 2**31 - 1))
def test_every_number_of_milliseconds_becomes_seconds(milliseconds):
    assert setting("stopTimeout", milliseconds).stop_timeout == milliseconds / 1000


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.none())
)
def test_any_value_is_either_taken_or_an_options_error(value):
    for name, _, _, _ in FIELDS:
        with contextlib.suppress(OptionsError):
            setting(name, value)


# Names.


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("delayrestart", "delayRestart"),
        ("delay_restart", "delayRestart"),
        ("DELAYRESTART", "delayRestart"),
        ("restrat", "restart"),
        ("maxRestart", "maxRestarts"),
        ("usesocket", "useSocket"),
        ("stoptimeout", "stopTimeout"),
        ("start_method", "startMethod"),
        ("delayReconect", "socket.delayReconnect"),
        ("socket_path", "socket.socketPath"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(wrong, near):
    with pytest.raises(OptionsError) as caught:
        Options().merged(None, {wrong: 1}, started=False)
    assert str(caught.value) == f"unknown option {wrong!r}, did you mean {near!r}?"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("delayReconect", "delayReconnect"),
        ("socketpath", "socketPath"),
        ("hots", "host"),
        ("auth_key", "authkey"),
    ],
)
def test_an_unknown_field_of_the_socket_is_refused_with_the_nearest_one(wrong, near):
    with pytest.raises(OptionsError) as caught:
        Options().merged(None, {"socket": {wrong: 1}}, started=False)
    assert str(caught.value) == f"unknown option 'socket.{wrong}', did you mean 'socket.{near}'?"


@pytest.mark.parametrize("wrong", ["port", "socket.port"])
def test_a_field_of_the_socket_outside_of_it_is_refused_with_how_to_write_it(wrong):
    with pytest.raises(OptionsError) as caught:
        Options().merged(None, {wrong: 1}, started=False)
    assert str(caught.value) == f"unknown option {wrong!r}, write socket={{'port': ...}}"


def test_an_option_inside_the_socket_that_belongs_outside_is_refused():
    with pytest.raises(
        OptionsError, match=r"^unknown option 'socket\.restart', write restart=\.\.\. outside"
    ):
        Options().merged(None, {"socket": {"restart": True}}, started=False)


@pytest.mark.parametrize("wrong", ["", "zzzzzz", 7, None, ("a", "b")])
def test_a_name_that_is_near_to_none_is_refused_with_all_of_them(wrong):
    with pytest.raises(OptionsError, match=r"^unknown option .* the known ones are restart, .*socket\.port"):
        Options().merged({wrong: 1}, {}, started=False)


@pytest.mark.parametrize("wrong", [[("restart", True)], "restart", 7, {"restart"}])
def test_what_is_no_mapping_is_refused(wrong):
    with pytest.raises(OptionsError, match=r"^options\(\) takes a mapping and keywords, not "):
        Options().merged(wrong, {}, started=False)


@pytest.mark.parametrize("wrong", [None, 7100, "localhost", [("port", 1)]])
def test_a_socket_that_is_no_mapping_is_refused(wrong):
    with pytest.raises(OptionsError, match="^option 'socket' must be a mapping of fields, not "):
        Options().merged(None, {"socket": wrong}, started=False)


# Merging.


def test_nothing_given_changes_nothing():
    assert Options().merged(None, {}, started=False) == Options()
    assert Options().merged({}, {"socket": {}}, started=True) == Options()


def test_the_socket_is_merged_by_field():
    options = Options().merged(None, {"socket": {"port": 1}}, started=False)
    options = options.merged(None, {"socket": {"host": "h"}}, started=False)
    assert (options.port, options.host) == (1, "h")


def test_a_mapping_and_keywords_are_merged_and_keywords_win():
    mapping = {"restart": False, "stopTimeout": 1, "socket": {"port": 1, "host": "h"}}
    options = Options().merged(mapping, {"restart": True, "socket": {"port": 2}}, started=False)
    assert (options.restart, options.stop_timeout, options.port, options.host) == (True, 0.001, 2, "h")


def test_any_mapping_will_do():
    mapping = MappingProxyType({"socket": MappingProxyType({"port": 1})})
    assert Options().merged(mapping, {}, started=False).port == 1


def test_merging_leaves_the_original_and_what_was_given_alone():
    before, socket = Options(), {"port": 1}
    before.merged({"socket": socket}, {"restart": False}, started=False)
    assert values(before) == DEFAULTS
    assert socket == {"port": 1}


def test_a_refused_call_changes_nothing_even_if_its_first_options_were_right():
    before = Options()
    with pytest.raises(OptionsError):
        before.merged(None, {"restart": False, "socket": {"port": 1, "host": ""}}, started=False)
    assert values(before) == DEFAULTS


# After start().


@pytest.mark.parametrize(("name", "attribute", "value", "becomes"), RIGHT)
def test_after_start_only_what_still_takes_effect_may_change(name, attribute, value, becomes):
    if name in LATER or becomes == DEFAULTS[attribute]:
        assert getattr(setting(name, value, started=True), attribute) == becomes
    else:
        with pytest.raises(OptionsError, match=f"^option '{name}' can no longer take effect"):
            setting(name, value, started=True)


@pytest.mark.parametrize(("name", "attribute", "value", "becomes"), RIGHT)
def test_after_start_an_option_may_be_set_to_the_value_it_has(name, attribute, value, becomes):
    before = setting(name, value)
    assert setting(name, value, started=True, base=before) == before


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_after_start_a_wrong_value_is_refused_as_before(name, value):
    with pytest.raises(OptionsError, match=f"^option '{name}' must be "):
        setting(name, value, started=True)


def test_a_key_refused_after_start_is_not_shown():
    with pytest.raises(OptionsError) as caught:
        setting("socket.authkey", KEY, started=True)
    assert KEY.decode() not in str(caught.value)


# Options are values, and keep the key to themselves.


def test_options_are_immutable():
    options = Options()
    with pytest.raises(AttributeError):
        options.port = 1
    with pytest.raises(AttributeError):
        del options.port
    assert values(options) == DEFAULTS


def test_options_compare_by_value():
    assert setting("socket.port", 1) == setting("socket.port", 1)
    assert setting("socket.port", 1) != setting("socket.port", 2)
    assert hash(setting("socket.port", 1)) == hash(setting("socket.port", 1))
    assert Options() != DEFAULTS


def test_the_key_is_in_no_repr():
    """D12: nor in what is shown."""
    shown = repr(setting("socket.authkey", KEY))
    assert KEY.decode() not in shown
    assert "authkey='set'" in shown
    assert "authkey=None" in repr(Options())


@pytest.mark.parametrize("wrong", [b"fifteen bytes!!", "fifteen bytes!!", ["a secret"]])
def test_a_wrong_key_is_not_shown(wrong):
    with pytest.raises(OptionsError) as caught:
        setting("socket.authkey", wrong)
    assert "fifteen" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_stays_behind_when_options_are_pickled_or_copied():
    """D12: nor in what is pickled."""
    options = setting("socket.authkey", KEY, base=setting("socket.port", 1))
    pickled = pickle.dumps(options)
    assert KEY not in pickled
    assert pickle.loads(pickled) == setting("socket.port", 1)
    assert copy.copy(options) == setting("socket.port", 1)


def test_the_length_of_a_socket_path_counts_in_bytes():
    fits = "/" + "\u00e4" * 51
    assert setting("socket.socketPath", fits).socket_path == fits
    assert len(os.fsencode(fits)) == 103


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A directory to be in, and no other one."""
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    return str(tmp_path / "d")


@pytest.mark.parametrize("path", ["s.sock", Path("s.sock"), "./s.sock", "../s.sock", "~/s.sock"])
def test_a_relative_socket_path_is_that_of_the_directory_in_which_it_is_set(directory, monkeypatch, path):
    options = setting("socket.socketPath", path)
    monkeypatch.chdir("/")
    assert options.socket_path == f"{directory}/{path}"
    assert setting("socket.port", 1, base=options).socket_path == f"{directory}/{path}"


def test_the_same_relative_path_is_another_one_in_another_directory(directory, monkeypatch):
    options = setting("socket.socketPath", "s")
    socket = {"socket": {"socketPath": "s"}}
    assert options.merged(socket, {}, started=True) == options
    monkeypatch.chdir("/")
    with pytest.raises(OptionsError, match="can no longer take effect"):
        options.merged(socket, {}, started=True)


def test_a_relative_socket_path_that_is_too_long_here_is_named_both_ways(directory):
    relative = "x" * 100
    with pytest.raises(OptionsError, match=r"socketPath.* at most \d+ bytes") as caught:
        setting("socket.socketPath", relative)
    for part in (relative, f"'{directory}/{relative}'", f"has {len(directory) + 101}"):
        assert part in str(caught.value)


def test_a_relative_socket_path_in_a_directory_that_was_removed_says_so(directory):
    os.rmdir(directory)
    with pytest.raises(OptionsError, match=r"'s': the working directory .* give an absolute path"):
        setting("socket.socketPath", "s")
    assert setting("socket.socketPath", "/s").socket_path == "/s"


# Per child.


def test_a_child_takes_what_the_emitter_has():
    defaults = setting("restart", False, base=setting("delayRestart", 5))
    assert child_options(None, None, defaults) == (False, 0.005)


def test_a_child_may_have_its_own():
    assert child_options("on-failure", 250, Options()) == ("on-failure", 0.25)
    assert child_options(False, None, Options()) == (False, 1.0)
    assert child_options(None, 0, Options()) == (True, 0.0)


@pytest.mark.parametrize("wrong", [1, "always", []])
def test_a_wrong_restart_of_a_child_is_refused(wrong):
    with pytest.raises(OptionsError, match="^option 'restart' must be "):
        child_options(wrong, None, Options())


@pytest.mark.parametrize("wrong", [number for number in NUMBERS if number is not None])
def test_a_wrong_delay_of_a_child_is_refused(wrong):
    with pytest.raises(OptionsError, match="^option 'delayRestart' must be "):
        child_options(None, wrong, Options())


@pytest.mark.parametrize(("given", "used"), [(None, "forkserver"), ("", "forkserver"), ("spawn", "spawn")])
def test_the_environment_sets_the_first_start_method(given, used):
    assert _options._first_start_method(given) == used


def test_a_wrong_start_method_of_the_environment_is_named():
    with pytest.raises(OptionsError, match=r'IPEVENTS_START must be "spawn" or "forkserver", not .fork.'):
        _options._first_start_method("fork")
