from __future__ import annotations

import copy
import enum
import pickle
import threading

import pytest

from ipevents._core import messages
from ipevents._core.messages import (
    ANSWER,
    BROADCAST,
    CHANNEL_ITEMS,
    CONTROL_ITEMS,
    INTEREST,
    LAST_EVENT,
    LAST_MESSAGE,
    MAX_PID,
    MAX_ROUTE,
    OFFLINE,
    REQUEST,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    SEND_TO,
    TO_CHILD,
    TO_PARENTS,
    TYPE_NAMES,
    WITH_PAYLOAD,
    Envelope,
    ErrorEnvelope,
    Message,
    check_event,
    check_name,
    check_names,
    check_received,
    control,
    count_messages,
    is_message,
    is_pid,
    is_pids,
    items_of,
)
from ipevents._exceptions import InvalidEvent, ProtocolError, ReservedEvent

NO_KINDS = {
    "KIND",
    "PATH",
    "EVENT",
    "TO",
    "PAYLOADS",
    "MESSAGE_ITEMS",
    "NUMBER",
    "OUTCOMES",
    "LAST_EVENT",
    "LAST_MESSAGE",
} | {name for name in vars(messages) if name.startswith("MAX_")}


class Name(str, enum.Enum):  # noqa: UP042  # StrEnum comes with 3.11
    DONE = "done"


def nothing(*_: object, **__: object) -> None:
    """Where a reply goes in these tests."""


def message(*args, kind=TO_PARENTS, pids=("a", "b"), event="hello", to=None, exitcode=None, **kwargs):
    return Message(Envelope(kind, pids, event, nothing, to, exitcode), args, kwargs)


# Names of events


@pytest.mark.parametrize(
    "name", ["a", "with space", "é" * 128, "x" * 256, "\N{GRINNING FACE}" * 64, "\ud800"]
)
def test_a_short_string_is_a_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", None, 1, b"bytes", ["a"], "x" * 257, "é" * 129, "\N{GRINNING FACE}" * 65]
)
def test_anything_else_is_none(name):
    with pytest.raises(InvalidEvent):
        check_name(name)


def test_a_member_of_a_str_enum_becomes_its_plain_value():
    assert type(check_name(Name.DONE)) is str
    assert check_name(Name.DONE) == "done"
    assert type(check_event(Name.DONE, sending=True)) is str


@pytest.mark.parametrize("event", ["ready", "online", "offline", "parent"])
@pytest.mark.parametrize("sending", [True, False])
def test_the_librarys_own_names_are_neither_sent_nor_emitted(event, sending):
    with pytest.raises(ReservedEvent, match=event):
        check_event(event, sending=sending)


def test_error_is_emitted_but_not_sent():
    assert check_event("error", sending=False) == "error"
    with pytest.raises(ReservedEvent):
        check_event("error", sending=True)


# Received records


@pytest.mark.parametrize("kind", TYPE_NAMES)
def test_a_received_record_of_each_kind_passes(kind):
    check_received(kind, "hello", None, [b""])


@pytest.mark.parametrize(
    ("kind", "event", "to"),
    [
        (0, "hello", None),
        (-1, "hello", None),
        (13, "hello", None),
        (OFFLINE, "hello", None),
        (True, "hello", None),
        (1.0, "hello", None),
        ([], "hello", None),
        (BROADCAST, "", None),
        (BROADCAST, 1, None),
        (BROADCAST, ["hello"], None),
        (BROADCAST, "x" * 257, None),
        (BROADCAST, "online", None),
        (BROADCAST, "ready", None),
        (BROADCAST, "parent", None),
        (TO_CHILD, "error", None),
        (TO_CHILD, "hello", ("a", ("b",))),
        (REQUEST, "online", None),
        (REQUEST, "error", None),
        (REQUEST, "hello", ()),
        (REQUEST, "hello", ("a", ())),
        (REQUEST, "hello", ("a", (1,))),
        (REQUEST, "hello", ("a", ("b",) * (MAX_ROUTE + 1))),
        (REQUEST_GRAND_MASTER, "hello", ("a", ("b",))),
        (REQUEST_ALL, "hello", ("a", ("b",))),
        (ANSWER, "hello", ("a", ("b",))),
        (REQUEST_ANY, "hello", ("a", ("b",))),
        (SEND_TO, "hello", ()),
        (SEND_TO, "hello", ("a",)),
        (SEND_TO, "hello", ("a", ())),
        (SEND_TO, "hello", ("a", ["b"])),
        (SEND_TO, "hello", ("a", "b")),
        (SEND_TO, "hello", ("a", (1,))),
        (SEND_TO, "hello", (1, ("b",))),
        (SEND_TO, "hello", ("a", ("b",) * (MAX_ROUTE + 1))),
        (SEND_TO, "hello", ("a", ("x" * (MAX_PID + 1),))),
    ],
)
def test_a_received_record_that_no_router_makes_is_refused(kind, event, to):
    with pytest.raises(ProtocolError):
        check_received(kind, event, to, [b""])


@pytest.mark.parametrize("messages", [None, [], (), ((),), b"x", "x", 5, {}])
def test_a_received_record_without_messages_is_refused(messages):
    with pytest.raises(ProtocolError):
        check_received(BROADCAST, "hello", None, messages)


@pytest.mark.parametrize("events", ["abc", None, ["a"], ("",), (1,), ("a", "x" * 257), {"a": 1}])
def test_interest_in_what_is_no_name_is_refused(events):
    with pytest.raises(ProtocolError):
        check_names(events)


@pytest.mark.parametrize("kind", [SEND_TO, REQUEST])
def test_what_goes_along_a_route_may_have_the_rest_of_it(kind):
    check_received(kind, "hello", ("a", ("b", "c")), [b""])


# Messages


def test_a_message_tells_where_it_comes_from():
    sent = message(1, 2, key="value")

    assert (sent.from_, sent.pids, sent.type, sent.event) == ("a", ("a", "b"), "toParents", "hello")
    assert (sent.args, sent.kwargs) == ((1, 2), {"key": "value"})
    assert (sent.to, sent.route, sent.exitcode) == (None, None, None)


@pytest.mark.parametrize(("kind", "name"), TYPE_NAMES.items())
def test_the_type_is_the_originals_spelling(kind, name):
    assert message(kind=kind).type == name


def test_a_local_event_has_no_type():
    assert message(kind=0).type == ""


def test_at_the_target_of_send_to_the_route_is_empty():
    assert message(kind=SEND_TO, to="b").route == ()
    assert message(kind=TO_CHILD, to="b").route is None


@pytest.mark.parametrize(
    "name",
    [
        "from_",
        "pids",
        "to",
        "route",
        "type",
        "event",
        "args",
        "kwargs",
        "exitcode",
        "failed",
        "listener",
        "child",
        "other",
    ],
)
def test_a_message_cannot_be_changed(name):
    with pytest.raises(AttributeError):
        setattr(message(), name, "changed")


def test_changing_the_keywords_of_a_message_changes_a_copy():
    sent = message(key="value")
    sent.kwargs["key"] = "changed"
    assert sent.kwargs == {"key": "value"}


def test_messages_with_the_same_content_are_equal():
    assert message(1) == message(1)
    assert hash(message(1)) == hash(message(1))


@pytest.mark.parametrize(
    "other",
    [
        message(2),
        message(1, pids=("c", "b")),
        message(1, event="x"),
        message(1, exitcode=3),
        message(1, k=1),
        1,
    ],
)
def test_messages_with_another_content_are_not(other):
    assert message(1) != other


def test_a_message_with_unhashable_arguments_has_a_hash():
    assert isinstance(hash(message([1], key={})), int)


def test_a_reply_goes_back_along_the_pids():
    sent = []
    envelope = Envelope(BROADCAST, ("a", "b", "c"), "hello", lambda *sends: sent.append(sends))
    Message(envelope, ()).reply("answer", 1, key="value")
    assert sent == [(("a", "b", "c"), "answer", (1,), {"key": "value"})]


def test_the_repr_is_a_status_line():
    assert repr(message(1)) == "<Message toParents 'hello' a>b args=(1,)>"
    assert repr(message(kind=0, pids=("a",))) == "<Message 'hello' a args=()>"
    assert (
        repr(message(1, key="value")) == "<Message toParents 'hello' a>b args=(1,) kwargs={'key': 'value'}>"
    )


def test_a_message_can_be_sent_on_as_an_argument():
    assert pickle.loads(pickle.dumps(message(1, key="value"), 5)) == message(1, key="value")


def error(exc="exc", **about):
    return Message(ErrorEnvelope(("a",), nothing, **about), (exc,))


def test_the_message_of_an_error_says_what_it_is_about():
    failed, child = message(1), object()
    about = error(failed=failed, listener=nothing, child=child)

    assert (about.event, about.type, about.pids, about.args) == ("error", "", ("a",), ("exc",))
    assert (about.failed, about.listener, about.child) == (failed, nothing, child)


@pytest.mark.parametrize("other", [message(1), message(kind=0, event="error"), error()])
def test_every_other_message_is_about_no_failure(other):
    assert (other.failed, other.listener, other.child) == (None, None, None)


@pytest.mark.parametrize("about", [{"failed": message(1)}, {"listener": nothing}, {"child": "child"}])
def test_what_an_error_is_about_counts_when_messages_are_compared(about):
    assert error(**about) == error(**about)
    assert error(**about) != error()
    assert hash(error(**about)) == hash(error(**about))


def test_the_message_of_an_error_cannot_be_changed_either():
    for name in ("failed", "listener", "child", "other"):
        with pytest.raises(AttributeError):
            setattr(error(failed=message(1)), name, None)


def test_a_pickled_error_keeps_the_message_in_question_and_leaves_the_handles_at_home():
    about = error(failed=message(1, key="value"), listener=lambda: None, child=threading.Lock())

    read = pickle.loads(pickle.dumps(about, 5))

    assert read == error(failed=message(1, key="value"))
    assert copy.copy(about) == about


def test_the_repr_of_an_error_says_what_it_is_about():
    assert repr(error()) == "<Message 'error' a args=('exc',)>"
    line = nothing.__code__.co_firstlineno
    assert repr(error(failed=message(kind=0), listener=nothing, child=7)) == (
        "<Message 'error' a args=('exc',) failed=<Message 'hello' a>b args=()> "
        f"listener={__name__}.nothing (test_messages.py:{line}) child=7>"
    )


KINDS = {
    name: value
    for name, value in vars(messages).items()
    if name.isupper() and type(value) is int and name not in NO_KINDS
}


def test_no_two_kinds_of_records_share_a_number():
    assert len(KINDS) == len(set(KINDS.values())) == 36


@pytest.mark.parametrize("name", KINDS)
def test_a_record_is_a_message_if_its_kind_has_a_name_for_users(name):
    kind = KINDS[name]
    record = (kind, ("a",), "x", None, [(), ()])
    assert is_message(record) == (kind in TYPE_NAMES)
    assert count_messages([record, record]) == (4 if kind in TYPE_NAMES else 0)


def test_the_kinds_of_events_come_first_and_those_of_requests_and_answers_next():
    requests = {REQUEST, REQUEST_GRAND_MASTER, REQUEST_ALL, ANSWER, REQUEST_ANY}
    assert {kind for kind in TYPE_NAMES if kind > LAST_EVENT} == requests
    assert max(TYPE_NAMES) == LAST_MESSAGE


@pytest.mark.parametrize("kind", [None, "x", (1,), 1.0, True])
def test_what_has_no_kind_is_no_message(kind):
    assert not is_message((kind, ("a",), "x", None, [()]))


# The items of control records


def test_each_kind_of_control_records_has_names_for_its_items():
    kinds = {kind for kind in KINDS.values() if kind > LAST_MESSAGE}

    assert not set(CONTROL_ITEMS) & set(CHANNEL_ITEMS)
    tables = {**CONTROL_ITEMS, **CHANNEL_ITEMS}
    assert set(tables) == kinds - WITH_PAYLOAD  # which have those of a message record
    assert all(len(set(names)) == len(names) for names in tables.values())


@pytest.mark.parametrize("kind", CONTROL_ITEMS)
def test_a_control_record_has_the_items_that_it_was_made_of(kind):
    items = {name: object() for name in CONTROL_ITEMS[kind]}
    record = control(kind, **items)

    assert type(record) is tuple  # a frame holds plain values only
    assert record[0] == kind
    assert items_of(record) == items


def test_the_order_in_which_items_are_named_does_not_matter():
    assert control(OFFLINE, exitcode=1, gone=("b",), path=("a",)) == (OFFLINE, ("a",), ("b",), 1)


@pytest.mark.parametrize(
    "items", [{}, {"event": "x"}, {"event": "x", "wanted": True, "more": 1}, {"a": 1, "b": 2}]
)
def test_no_control_record_is_made_of_other_items(items):
    with pytest.raises((AssertionError, KeyError)):
        control(INTEREST, **items)


@pytest.mark.parametrize("record", [(INTEREST,), (INTEREST, "x"), (INTEREST, "x", True, 1), [INTEREST, "x"]])
def test_a_control_record_with_more_or_fewer_items_is_refused(record):
    with pytest.raises(ValueError, match="zip"):
        items_of(record)


@pytest.mark.parametrize(
    "pid", ["4711", "127.0.0.1:40718", "[fe80::1%eth0]:7100", "4711-3fa9c2", "x" * MAX_PID]
)
def test_a_pid_is_printable(pid):
    assert is_pid(pid)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "two words",
        "x\n4711",
        "\x1b[31m",
        "\x7f",
        "\xe9",
        "\u202e",
        "\ud800",
        "x" * (MAX_PID + 1),
        1,
        None,
    ],
)
def test_what_could_pass_for_something_else_is_no_pid(value):
    assert not is_pid(value)
    assert not is_pids(("4711", value), 2)
