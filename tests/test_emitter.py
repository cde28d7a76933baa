"""The public API in one process, without children and without a socket."""

from __future__ import annotations

import copy
import enum
import gc
import os
import pickle
import re
import subprocess
import sys
import threading

import pytest

import ipevents
from ipevents import (
    Closed,
    Emitter,
    InvalidEvent,
    InvalidListener,
    IPEventsError,
    MessageTooLarge,
    NotStarted,
    OptionsError,
    ReservedEvent,
    UnknownProcess,
    Unpicklable,
)

CEILING = 30.0  # reached only in a deadlock
SENDS = ["bubble", "sendToParents", "sendToChilds", "sendToSiblings", "sendToGrandMaster", "broadcast"]


@pytest.fixture
def ipem():
    emitter = Emitter().options(useSocket=False)
    yield emitter
    emitter.stop()


@pytest.fixture
def started(ipem):
    return ipem.start()


@pytest.fixture
def heard():
    return []


def hears(heard, name=None):
    def listener(message, *args, **kwargs):
        heard.append(message.event if name is None else name)

    return listener


# Options


def test_options_chain_and_merge(ipem):
    assert ipem.options({"delayRestart": 5}).options(restart=False) is ipem


def test_an_unknown_option_is_refused_with_the_nearest_known_one(ipem):
    with pytest.raises(OptionsError, match="delayRestart"):
        ipem.options(delayrestart=5)


def test_what_can_no_longer_take_effect_is_refused_after_start(started):
    with pytest.raises(OptionsError):
        started.options(useSocket=True)
    assert started.options(restart=False) is started


def test_after_a_stop_all_options_may_change_again(started):
    started.stop()
    assert started.options(useSocket=False, startMethod="forkserver") is started


# Listening


def test_on_registers_and_chains(ipem, heard):
    assert ipem.on("x", hears(heard)).on("y", hears(heard)) is ipem
    ipem.emit("x")
    ipem.emit("y")
    assert heard == ["x", "y"]


def test_on_is_a_decorator_that_returns_the_function(ipem, heard):
    @ipem.on("x")
    def listener(message):
        heard.append("x")

    @ipem.once("x")
    def single(message):
        heard.append("once")

    assert ipem.listeners("x") == [listener, single]
    ipem.emit("x")
    ipem.emit("x")
    assert heard == ["x", "once", "x"]


def test_a_listener_may_be_for_one_origin(ipem, heard):
    ipem.on("x", hears(heard, "me"), sender=ipem.pid).on("x", hears(heard, "other"), sender=1)
    ipem.once("x", hears(heard, "once"), sender=ipem.pid)
    ipem.emit("x")
    assert heard == ["me", "once"]


def test_off_removes_the_newest_of_a_listener(ipem, heard):
    first, second = hears(heard, 1), hears(heard, 2)
    ipem.on("x", first).on("x", second).on("x", first)
    assert ipem.off("x", first) is ipem
    assert ipem.listeners("x") == [first, second]


def test_off_removes_all_of_an_event_or_all(ipem, heard):
    ipem.on("x", hears(heard)).on("x", hears(heard)).on("y", hears(heard)).on("z", hears(heard))
    ipem.off("x")
    assert ipem.eventNames() == ["y", "z"]
    assert ipem.removeAllListeners("y").eventNames() == ["z"]
    assert ipem.off().eventNames() == []


def test_the_aliases_of_node_work(ipem, heard):
    listener = hears(heard)
    assert ipem.addListener("x", listener).listenerCount("x") == 1
    assert ipem.removeListener("x", listener).listenerCount("x") == 0
    assert ipem.addListener("x", listener).removeAllListeners().eventNames() == []


@pytest.mark.parametrize("method", ["on", "once", "off", "emit", "listeners", "listenerCount", "signal"])
@pytest.mark.parametrize("event", ["", None, 5, ["x"], "x" * 300])
def test_what_is_no_name_is_refused(ipem, method, event):
    if (method, event) != ("off", None):  # that is all events
        with pytest.raises(InvalidEvent):
            getattr(ipem, method)(event)


@pytest.mark.parametrize("method", SENDS)
@pytest.mark.parametrize("event", ["", None, 5, ["x"], "x" * 300])
def test_what_is_no_name_is_not_sent(started, method, event):
    with pytest.raises(InvalidEvent):
        getattr(started, method)(event)


def test_what_cannot_take_a_message_is_refused(ipem):
    with pytest.raises(InvalidListener):
        ipem.on("x", lambda: None)
    with pytest.raises(InvalidListener):
        ipem.on("x")(None)
    assert ipem.eventNames() == []


@pytest.mark.parametrize("method", ["off", "addListener", "removeListener", "on", "once"])
@pytest.mark.parametrize("listener", ["", 0, b"x", ["x"], None])
def test_what_is_no_function_is_no_listener(ipem, heard, method, listener):
    ipem.on("x", hears(heard))
    if listener is None and method in ("off", "on", "once"):
        return  # all of them, a decorator
    with pytest.raises(InvalidListener, match=rf"not {re.escape(repr(listener))}"):
        getattr(ipem, method)("x", listener)
    assert ipem.listenerCount("x") == 1


def test_a_value_with_a_repr_that_raises_is_refused_like_others(started):
    class Nasty:
        def __repr__(self):
            raise ZeroDivisionError

    with pytest.raises(InvalidEvent, match="Nasty object"):
        started.broadcast(Nasty())
    with pytest.raises(InvalidListener, match="Nasty object"):
        started.on("x", Nasty())
    with pytest.raises(TypeError, match="Nasty object"):
        started.sendTo(Nasty(), "x")


def test_who_connects_to_the_signal_listens(ipem, heard):
    receiver = hears(heard)
    ipem.signal("x").connect(receiver)
    assert ipem.emit("x")
    assert ipem.listenerCount("x") == 1
    del receiver
    gc.collect()
    assert not ipem.emit("x")


class Event(str, enum.Enum):  # noqa: UP042  # StrEnum comes with 3.11
    DONE = "done"


def test_a_member_of_a_str_enum_is_its_value(started, heard):
    started.on(Event.DONE, hears(heard)).on("done", hears(heard))
    assert started.listenerCount("done") == started.listenerCount(Event.DONE) == 2
    started.emit("done")
    started.bubble(Event.DONE)
    started.sendToGrandMaster(Event.DONE)
    assert heard == ["done"] * 6
    assert all(type(event) is str for event in heard)


# Local events


def test_emit_calls_with_a_message_and_the_arguments(ipem):
    calls = []
    ipem.on("x", lambda message, *args, **kwargs: calls.append((message, args, kwargs)))
    assert ipem.emit("x", 1, key=2)
    ((message, args, kwargs),) = calls
    assert (args, kwargs) == ((1,), {"key": 2})
    assert (message.event, message.args, message.kwargs) == ("x", (1,), {"key": 2})
    assert (message.type, message.from_, message.pids, message.to) == ("", ipem.pid, (ipem.pid,), None)


def test_emit_passes_the_very_objects(ipem):
    thing = threading.Lock()
    got = []
    ipem.on("x", lambda message, value: got.append(value))
    ipem.emit("x", thing)
    assert got == [thing]


def test_emit_tells_whether_anybody_listened(ipem):
    assert ipem.emit("x") is False
    ipem.on("x", lambda message: None)
    assert ipem.emit("x") is True


def test_a_reply_to_a_local_event_is_a_local_event(started, heard):
    started.on("x", lambda message: message.reply("answer", 1))
    started.on("answer", lambda message, value: heard.append((message.type, message.pids, value)))
    started.emit("x")
    assert heard == [("", (started.pid,), 1)]


@pytest.mark.parametrize("event", ["ready", "online", "offline", "parent", "stopping"])
def test_the_librarys_own_events_are_neither_sent_nor_emitted(started, event):
    for method in [*SENDS, "emit"]:
        with pytest.raises(ReservedEvent):
            getattr(started, method)(event)
    with pytest.raises(ReservedEvent):
        started.sendTo([started.pid], event)
    with pytest.raises(ReservedEvent):
        started.sendToChild("1", event)


def test_error_can_be_emitted_but_not_sent(started, heard):
    started.on("error", lambda message, exc: heard.append(exc))
    started.emit("error", ValueError("mine"))
    assert isinstance(heard.pop(), ValueError)
    for method in SENDS:
        getattr(started, method)("error", 1)
    started.stop()
    assert [type(exc) for exc in heard] == [ReservedEvent] * len(SENDS)


@pytest.mark.parametrize("event", ["ready", "", None])
def test_a_wrong_name_is_an_error_event_from_all_that_send(started, heard, event):
    started.on("error", lambda message, exc: heard.append(exc))
    for method in SENDS:
        assert getattr(started, method)(event) is started
    assert started.emit(event) is False
    started.sendTo([started.pid], event)
    started.sendToChild("1", event)
    started.stop()
    assert len(heard) == len(SENDS) + 3
    assert all(isinstance(exc, InvalidEvent) for exc in heard)


@pytest.mark.parametrize("is_started", [False, True])
def test_a_send_that_an_error_listener_gets_wrong_is_raised_there_and_does_not_go_round(
    ipem, heard, caplog, is_started
):
    def listener(message, exc):
        heard.append(exc)
        ipem.sendToChild("4711", "trouble", str(exc))

    ipem.on("error", listener)
    if is_started:
        ipem.start()
    ipem.broadcast("ready")
    ipem.stop()
    assert [type(exc) for exc in heard] == [ReservedEvent if is_started else NotStarted]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[0] is (UnknownProcess if is_started else NotStarted)


def test_a_stop_that_overtakes_an_error_listener_is_no_failure(started, heard, caplog):
    def listener(message, exc):
        heard.append(exc)
        started.broadcast("trouble")

    started.stop()
    started.on("error", listener)
    assert started.broadcast("x") is started
    assert [type(exc) for exc in heard] == [Closed]
    assert caplog.records == []


# A grand master alone


def test_bubble_and_to_the_grand_master_are_local_here(started, heard):
    started.on("x", lambda message, value: heard.append((message.type, message.pids, value)))
    assert started.bubble("x", 1) is started
    assert started.sendToGrandMaster("x", 2) is started
    assert heard == [("", (started.pid,), 1), ("", (started.pid,), 2)]


@pytest.mark.parametrize("method", ["sendToParents", "sendToChilds", "sendToSiblings", "broadcast"])
def test_what_goes_to_others_reaches_nobody_here(started, heard, method):
    started.on("x", hears(heard))
    assert getattr(started, method)("x", 1) is started
    assert heard == []


@pytest.mark.parametrize("method", SENDS)
def test_what_cannot_be_pickled_is_refused(started, method):
    with pytest.raises(Unpicklable, match="argument 1"):
        getattr(started, method)("x", sys._getframe())


def test_unknown_targets_are_refused(started):
    with pytest.raises(UnknownProcess):
        started.sendToChild("4711", "x")
    with pytest.raises(UnknownProcess):
        started.sendTo(["4711"], "x")
    with pytest.raises(UnknownProcess):
        started.sendTo(["target", 4711, started.pid], "x")
    with pytest.raises(UnknownProcess):
        started.sendTo(["x" * 1000], "x")


def test_a_route_to_nobody_is_refused(started):
    with pytest.raises(IPEventsError):
        started.sendTo([], "x")


@pytest.mark.parametrize("pid", [None, 1.5, True, b"1"])
def test_a_pid_is_a_text_a_number_or_a_child(started, pid):
    with pytest.raises(TypeError):
        started.sendToChild(pid, "x")
    with pytest.raises(TypeError):
        started.sendTo([pid], "x")
    if pid is not None:
        with pytest.raises(TypeError):
            started.on("x", print, sender=pid)


def test_a_request_to_what_is_no_target_says_that_it_was_a_request(started):
    with pytest.raises(TypeError, match="a request takes a pid"):
        started.request(None, "x")


@pytest.mark.parametrize("pids", [None, 1.5, True, b"12", {"12"}, {"12": 1}, print])
def test_a_route_is_a_pid_or_pids_in_order(started, pids):
    with pytest.raises(TypeError, match=rf"a pid.*, not {re.escape(repr(pids))}"):
        started.sendTo(pids, "x")
    assert started.stats()["sent"] == 0


def test_a_route_may_be_any_row_of_pids(started, heard):
    started.on("x", hears(heard))
    started.sendTo(iter([started.pid]), "x")
    started.sendTo([started.pid], "x")
    started.sendTo((started.pid,), "x")
    assert heard == ["x"] * 3


@pytest.mark.parametrize("send", ["sendTo", "sendToChild"])
def test_an_empty_pid_is_nobodys(started, send):
    with pytest.raises(UnknownProcess, match="''"):
        getattr(started, send)("", "x")


def test_no_process_is_called_nothing(ipem):
    with pytest.raises(ValueError, match="sender"):
        ipem.on("x", print, sender="")
    assert ipem.eventNames() == []


def test_a_route_to_oneself_is_a_local_event(started, heard):
    started.on("x", hears(heard))
    started.sendTo([started.pid], "x")
    started.sendTo(started.pid, "x")
    assert heard == ["x", "x"]


def test_a_mistake_is_an_error_event_if_anybody_listens_to_error(started):
    with started.expecting("error", CEILING) as got:
        assert started.sendToChild("4711", "x") is started
    (exc,) = got.message.args
    assert isinstance(exc, UnknownProcess)
    assert isinstance(exc, LookupError)


def test_a_refused_send_is_not_counted(started):
    with pytest.raises(UnknownProcess):
        started.sendToChild("4711", "x")
    with pytest.raises(Unpicklable):
        started.broadcast("x", sys._getframe())
    assert started.stats()["sent"] == 0
    started.broadcast("x")
    assert started.stats()["sent"] == 1


def test_names_of_events_that_were_waited_for_once_are_forgotten(started):
    for number in range(100):
        with started.expecting(f"reply-{number}", CEILING):
            started.emit(f"reply-{number}")
        started.once(f"answer-{number}", lambda message: None).sendTo(started.pid, f"answer-{number}")
    assert started._node.dispatcher._signals == {}


# Failing listeners


def test_a_listener_that_raises_becomes_an_error_event_and_spares_the_others(started, heard):
    error = ValueError("mine")

    def listener(message):
        raise error

    started.on("x", listener).on("x", hears(heard))
    with started.expecting("error", CEILING) as got:
        assert started.emit("x")
    assert heard == ["x"]
    assert got.message.args == (error,)


def test_without_a_listener_to_error_it_is_logged(started, caplog):
    started.on("x", lambda message: 1 / 0)
    started.emit("x")
    started.stop()
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[0] is ZeroDivisionError
    assert record.name.startswith("ipevents")


def test_an_error_listener_that_raises_is_only_logged(started, caplog):
    started.on("error", lambda message, exc: 1 / 0)
    started.emit("error", ValueError())
    started.stop()
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info[0] is ZeroDivisionError


def test_system_exit_out_of_a_listener_ends_run_with_its_code(ipem):
    ipem.on("ready", lambda message: sys.exit(7))
    with pytest.raises(SystemExit) as caught:
        ipem.run(CEILING)
    assert caught.value.code == 7


@pytest.mark.parametrize(("args", "kwargs"), [((None,), {}), ((), {"target": None}), ((None, [1]), {})])
def test_none_as_a_target_is_a_mistake_and_starts_nothing(started, args, kwargs):
    with pytest.raises(TypeError, match=r"not None; worker\(\) without arguments runs this script again"):
        started.worker(*args, **kwargs)
    assert started.childsOnline == 0


def test_a_send_that_the_stage_does_not_allow_says_whose_stage_it_is(ipem):
    here = ipem._node.place()
    for begin, told in [
        (lambda: None, f"{here} has not started: call ipem.start() first"),
        (lambda: ipem.start().stop(), f"{here} was stopped"),
    ]:
        begin()
        with pytest.raises((NotStarted, Closed), match=f"^{re.escape(told)}$"):
            ipem.broadcast("x")


def exits(code):
    def listener(message, *args, **kwargs):
        sys.exit(code)

    return listener


def test_nothing_is_handled_after_a_system_exit(ipem, heard):
    ipem.on("x", exits(7)).on("x", hears(heard)).on("y", hears(heard)).on("error", hears(heard))

    def program():
        ipem.emit("x")
        assert not ipem.emit("y")
        ipem.sendToGrandMaster("y")

    ipem.on("online", lambda message: None).start()
    with ipem._life.opening.building:  # so that the stop cannot be over before the program is
        program()
    with pytest.raises(SystemExit) as caught:
        ipem.run(CEILING)
    assert caught.value.code == 7
    assert heard == []
    ipem.emit("y")
    assert heard == ["y"], "what is emitted after the end is emitted by code that lives on"


def test_a_system_exit_of_ready_leaves_nothing_to_online(ipem, heard):
    ipem.on("ready", exits(7)).on("online", hears(heard)).start()
    with pytest.raises(SystemExit):
        ipem.run(CEILING)
    assert heard == []


@pytest.mark.parametrize("how", ["emit", "bubble", "sendToGrandMaster", "sendTo"])
def test_a_system_exit_ends_the_listener_that_emitted_as_well(started, heard, how):
    def listener(message):
        args = ([started.pid],) if how == "sendTo" else ()
        getattr(started, how)(*args, "inner")
        heard.append("after")

    started.on("inner", exits(7)).on("x", listener).on("x", hears(heard))
    started.emit("x")
    with pytest.raises(SystemExit) as caught:
        started.run(CEILING)
    assert caught.value.code == 7
    assert heard == []


@pytest.mark.parametrize("stage", ["new", "stopped"])
def test_a_system_exit_where_nothing_is_open_is_raised_at_the_emit(ipem, heard, stage):
    if stage == "stopped":
        ipem.start().stop()
    ipem.on("x", exits(7)).on("y", hears(heard))
    with pytest.raises(SystemExit) as caught:
        ipem.emit("x")
    assert caught.value.code == 7
    assert ipem.emit("y"), "nothing has ended"
    ipem.start().stop()


def test_after_a_system_exit_it_can_be_started_again(started, heard):
    started.once("x", exits(7)).on("x", hears(heard))
    started.emit("x")
    with pytest.raises(SystemExit):
        started.run(CEILING)
    started.start()
    started.emit("x")
    assert heard == ["x"]


# Keywords


NAMES = [
    "self",
    "event",
    "pid",
    "pids",
    "message",
    "args",
    "kwargs",
    "listener",
    "receiver",
    "where",
    "timeout",
]


def test_a_keyword_of_an_event_may_have_any_name(started, heard):
    given = {name: name.upper() for name in NAMES}
    started.on("x", lambda m, /, *args, **kwargs: heard.append(kwargs))
    started.once("x", lambda m, /, *args, **kwargs: heard.append(kwargs))
    started.signal("x").connect(lambda m, /, *args, **kwargs: heard.append(kwargs), weak=False)
    assert started.emit("x", **given)
    for method in ("bubble", "sendToGrandMaster"):
        getattr(started, method)("x", **given)
    started.sendTo([started.pid], "x", **given)
    started.on("question", lambda m, /: m.reply("x", **given)).emit("question")
    assert heard == [given] * (3 + 2 * 4)


@pytest.mark.parametrize("method", SENDS)
def test_a_keyword_of_any_name_is_sent(started, method):
    getattr(started, method)("x", **dict.fromkeys(NAMES, 1))


def test_a_keyword_of_any_name_is_sent_to_a_child(started):
    child = started.worker(print)
    with started.expecting("offline", CEILING):
        started.sendToChild(child, "x", **dict.fromkeys(NAMES, 1))
        child.send("x", **dict.fromkeys(NAMES, 1))


def test_an_event_with_a_keyword_of_any_name_is_waited_for(started):
    given = dict.fromkeys(NAMES, 1)
    seen = []
    with started.expecting("x", CEILING, where=lambda m, /, **kwargs: seen.append(kwargs) or True) as got:
        started.emit("x", **given)
    assert got.message.kwargs == given
    assert seen == [given]


def test_a_keyword_that_a_listener_calls_its_message_is_that_listeners_failure(started, heard):
    started.on("x", lambda message, **kwargs: heard.append("mine")).on(
        "x", lambda m, **kwargs: heard.append(m)
    )
    with started.expecting("error", CEILING) as got:
        started.emit("x", message=1)
    (exc,) = got.message.args
    assert isinstance(exc, TypeError)
    assert "multiple values for argument 'message'" in str(exc)
    assert [message.event for message in heard] == ["x"]


# Life


def test_ready_and_online_are_emitted_before_start_returns(ipem, heard):
    ipem.on("ready", hears(heard)).on("online", hears(heard))
    assert ipem.start() is ipem
    assert heard == ["ready", "online"]
    ipem.start()
    assert heard == ["ready", "online"]


def test_stopping_is_emitted_once_for_each_stop_while_listeners_may_still_send(ipem, heard):
    @ipem.on("stopping")
    def stopping(message):
        heard.append((message.event, message.from_ == ipem.pid, ipem.stopping))
        ipem.broadcast("x")  # raises nothing
        ipem.stop()

    for _ in range(2):
        ipem.start()
        ipem.stop()
        ipem.stop()
    assert heard == [("stopping", True, True)] * 2


def test_a_wait_for_stopping_gets_that_message(started):
    with started.expecting("stopping", CEILING) as got:
        started._life.request_stop(None)
    assert got.message.event == "stopping"


def test_a_wait_for_stopping_ends_where_no_listener_is_called_any_more(started):
    def leave(message):
        raise SystemExit(0)

    started.on("leave", leave)
    with pytest.raises(Closed), started.expecting("stopping", CEILING):
        started.emit("leave")


def test_a_wait_for_stopping_that_begins_just_after_it_was_emitted_ends(started, monkeypatch):
    life = started._life
    begin = life.node.dispatcher.begin_wait

    def late(event, heard):
        life.stopping.set()
        life._say_stopping(life.stopped)
        return begin(event, heard)

    monkeypatch.setattr(life.node.dispatcher, "begin_wait", late)
    expectation = started.expecting("stopping", CEILING)
    with pytest.raises(Closed), expectation:
        assert expectation._came.is_set()


def test_a_wait_for_another_stopping_ends_with_the_stop(started):
    with pytest.raises(Closed), started.expecting("stopping", CEILING, where=lambda message: False):
        started.stop()


def test_the_grace_of_one_child_is_checked(started):
    with pytest.raises(OptionsError, match="'stopGrace'"):
        started.worker(print, stopGrace="1")
    with pytest.raises(OptionsError, match="'stopGrace'"):
        started.fork(__file__, stopGrace=-1)


def test_the_attributes_of_a_top_process(ipem):
    assert (ipem.isGrandMaster, ipem.isMaster, ipem.isWorker) == (False, True, False)
    assert ipem.parentPid is None
    ipem.start()
    assert (ipem.isGrandMaster, ipem.isMaster, ipem.isWorker) == (True, True, False)
    assert (ipem.parentPid, ipem.childsOnline, ipem.netmap) == (None, 0, {})
    ipem.stop()
    assert not ipem.isGrandMaster


@pytest.mark.parametrize("method", SENDS)
def test_before_start_nothing_is_sent(ipem, heard, method):
    ipem.on("x", hears(heard))
    with pytest.raises(NotStarted):
        getattr(ipem, method)("x")
    assert heard == []


def test_before_start_nothing_is_addressed_or_waited_for(ipem):
    with pytest.raises(NotStarted):
        ipem.sendToChild("1", "x")
    with pytest.raises(NotStarted):
        ipem.sendTo(["1"], "x")
    with pytest.raises(NotStarted):
        ipem.waitFor("x", 0)
    assert ipem.eventNames() == []


@pytest.mark.parametrize("method", SENDS)
def test_after_stop_nothing_is_sent(started, heard, method):
    started.on("x", hears(heard))
    started.stop()
    with pytest.raises(Closed):
        getattr(started, method)("x")
    assert heard == []


def test_after_stop_nothing_is_sent_to_a_child_either(started):
    child = started.worker(print)
    started.stop()
    with pytest.raises(Closed):
        child.send("x")


def test_local_events_need_no_start(ipem, heard):
    ipem.on("x", hears(heard)).emit("x")
    ipem.start().stop()
    ipem.emit("x")
    assert heard == ["x", "x"]


def test_stop_is_idempotent_and_needs_no_start(ipem):
    ipem.stop()
    assert not ipem.stopping
    ipem.start()
    ipem.stop()
    assert ipem.stopping
    ipem.stop()
    ipem.stop(0.1)


def test_it_can_be_started_again_with_its_listeners(ipem, heard):
    ipem.on("ready", hears(heard)).on("x", hears(heard))
    pid = ipem.pid
    for _ in range(3):
        ipem.start()
        assert not ipem.stopping
        ipem.sendToGrandMaster("x")
        ipem.stop()
    assert heard == ["ready", "x"] * 3
    assert ipem.pid == pid


def test_with_starts_and_stops(ipem, heard):
    ipem.on("ready", hears(heard))
    with ipem as entered:
        assert entered is ipem
        assert ipem.isGrandMaster
    assert ipem.stopping
    assert heard == ["ready"]


def test_with_stops_after_an_exception(ipem):
    with pytest.raises(ZeroDivisionError), ipem:
        raise ZeroDivisionError
    assert ipem.stopping


def test_stop_in_a_listener_only_asks_for_it(started):
    seen = []

    def listener(message):
        started.stop()
        seen.append(started.stopping)

    started.on("x", listener)
    started.emit("x")
    assert seen == [True]
    assert started.run(CEILING)


def test_run_waits_until_stopped_by_another_thread(ipem):
    ipem.on("online", lambda message: threading.Thread(target=ipem.stop).start())
    assert ipem.run(CEILING) is True


def test_run_gives_up_waiting_after_its_time(ipem):
    assert ipem.run(0) is False
    assert not ipem.stopping
    ipem.stop()
    assert ipem.run(0) is True


def test_many_threads_may_stop_at_once(started):
    threads = [threading.Thread(target=started.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert not any(thread.is_alive() for thread in threads)
    assert started.stopping


def test_many_threads_may_start_at_once(ipem, heard):
    ipem.on("ready", hears(heard))
    threads = [threading.Thread(target=ipem.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert heard == ["ready"]


# Waiting


def test_run_with_a_wrong_timeout_does_not_start(ipem):
    with pytest.raises(TypeError):
        ipem.run("3")
    assert not ipem.isGrandMaster


def test_two_threads_whose_listeners_emit_at_each_others_emitter_come_to_an_end(ipem):
    other = Emitter()
    both_run = threading.Barrier(2)
    heard = []
    for mine, its in ((ipem, other), (other, ipem)):
        mine.on("echo", lambda message: heard.append(message.event))
        mine.on("go", lambda message, its=its: its.emit("echo"))

    def run(emitter):
        both_run.wait(CEILING)
        for _ in range(5000):
            emitter.emit("go")

    threads = [threading.Thread(target=run, args=(emitter,), daemon=True) for emitter in (ipem, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert not any(thread.is_alive() for thread in threads)
    assert len(heard) == 10_000


# Starting children: what is refused starts none


@pytest.mark.parametrize(
    ("args", "options", "error"),
    [
        ((print, "abc"), {}, "'abc'"),
        ((print, 5), {}, "5"),
        ((print,), {"kwargs": [("a", 1)]}, "dict"),
        ((print,), {"kwargs": {1: 2}}, "1 is no name"),
        ((print,), {"name": 3}, "not 3"),
        (("notcallable",), {}, "'notcallable'"),
        ((), {"args": (1,)}, "for a target"),
        ((), {"kwargs": {"a": 1}}, "for a target"),
    ],
)
def test_a_worker_that_could_not_be_run_is_refused_at_the_call(started, args, options, error):
    with pytest.raises(TypeError, match=error):
        started.worker(*args, **options)
    assert started.childsOnline == 0


@pytest.mark.parametrize("option", [{"restart": "x"}, {"restart": 1}, {"delayRestart": float("nan")}])
def test_options_of_a_child_are_checked_at_the_call(started, option):
    with pytest.raises(OptionsError):
        started.worker(print, **option)
    assert started.childsOnline == 0


def test_a_script_that_could_not_be_run_is_refused_at_the_call(started, tmp_path):
    for path, error in ((tmp_path, FileNotFoundError), ("", FileNotFoundError), (None, TypeError)):
        with pytest.raises(error):
            started.fork(path)
    with pytest.raises(TypeError, match="'abc'"):
        started.fork(__file__, "abc")
    assert started.childsOnline == 0


# The default emitter and further ones


def test_the_module_is_the_default_emitter():
    script = """
import ipevents as ipem
from ipevents import ipem as same
heard = []
@ipem.on("x")
def listener(message, value):
    heard.append(value)
assert ipem.emit("x", 1) and same.emit("x", 2) and heard == [1, 2]
assert ipem.pid == same.pid == str(__import__("os").getpid())
assert ipem.options(useSocket=False) is same
with same:
    assert ipem.isGrandMaster and not ipem.stopping
assert ipem.stopping
try:
    ipem.nonsense
except AttributeError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "nonsense" in done.stdout
    assert done.stderr == ""


def test_an_unknown_attribute_of_the_module_is_an_attribute_error():
    with pytest.raises(AttributeError):
        ipevents.nonsense  # noqa: B018
    with pytest.raises(AttributeError):
        ipevents.__nonsense__  # noqa: B018
    assert not hasattr(ipevents, "_life")


def test_the_default_emitter_has_the_pid_of_the_process_and_others_a_number_more():
    first, second = Emitter(), Emitter()
    assert ipevents.ipem.pid == str(os.getpid())
    assert first.pid.startswith(f"{os.getpid()}.")
    assert len({first.pid, second.pid, ipevents.ipem.pid}) == 3


def test_emitters_of_one_process_share_nothing(heard):
    first, second = Emitter(), Emitter()
    first.on("x", hears(heard))
    second.emit("x")
    assert heard == []
    assert second.eventNames() == []


def test_the_default_emitter_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(ipevents.ipem)) is ipevents.ipem
    assert b"ipem" in pickle.dumps(ipevents.ipem)


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_a_message_that_is_copied_or_sent_on_replies_by_the_emitter_of_its_process(copied):
    emitter = ipevents.ipem
    questions, answers = [], []
    emitter.on("question", lambda message, number: questions.append(message))
    emitter.on("answer", lambda message, number: answers.append(number))
    try:
        emitter.emit("question", 1)
        message = copied(questions[0])
        assert message == questions[0]
        message.reply("answer", 2)
        assert answers == [2]
    finally:
        emitter.off()


def test_further_emitters_cannot_be_pickled(ipem):
    with pytest.raises(Unpicklable):
        pickle.dumps(ipem)


def test_an_emitter_that_nobody_holds_is_collected():
    import weakref

    emitter = Emitter()
    emitter.on("x", lambda message, own=emitter: own.stop()).signal("y").connect(print)
    reference = weakref.ref(emitter)
    del emitter
    gc.collect()
    assert reference() is None


# Looking at it


def test_the_repr_is_a_status_line(ipem):
    assert repr(ipem) == f"<Emitter {ipem.pid} new, parent None, 0 children>"
    ipem.start()
    assert "open" in repr(ipem)
    ipem.stop()
    assert "closed" in repr(ipem)


def test_stats_are_plain_values(started):
    stats = started.stats()
    assert (stats["pid"], stats["restarts"], stats["sent"], stats["links"]) == (started.pid, 0, 0, {})
    assert stats["refused"] == {}
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_the_netmap_is_printed(started, capsys):
    started.printNetmap()
    assert capsys.readouterr().out == f"{started.pid}\n"


def test_whatever_the_netmap_holds_it_is_printed_in_one_line_for_each_process(started, capsys):
    node = started._node
    with node.lock:
        for pid in ("\ud800", "x\n  \x1b[31m4711"):
            node.router.netmap.online((pid,))
    started.printNetmap()
    assert capsys.readouterr().out == f"{started.pid}\n  \\ud800\n  x\\n  \\x1b[31m4711\n"


def test_nothing_is_too_large_for_nobody(started):
    assert issubclass(MessageTooLarge, ValueError)
    started.broadcast("x", bytes(20 << 20))
