"""A server without its acceptor: whom it lets in, by which name, and when it has a client in its tree."""

from __future__ import annotations

import queue
import socket
import threading
from multiprocessing.connection import Connection

import pytest
from starters import in_child

from ipevents._ask.asking import Asking
from ipevents._core import wire
from ipevents._core.handshake import HUNG_UP, WRONG_KEY, Agreement, Identity, Refusal
from ipevents._core.messages import MAX_ROUTE, ONLINE, TO_PARENTS
from ipevents._core.state import Stage
from ipevents._dispatch.floor import Floor
from ipevents._dispatch.notices import Notices
from ipevents._exceptions import LinkError
from ipevents._links import link as link_module
from ipevents._links.link import Link
from ipevents._network import server as module
from ipevents._network.server import Server
from ipevents._node.node import Node
from ipevents._node.snapshot import snapshot
from ipevents._options import Options
from ipevents._platform.threads import Deadline
from ipevents._transport.acceptor import EVICTED, Accepted
from ipevents._transport.join import Listening

CEILING = 20.0  # reached only in a deadlock
KEY = b"k" * 32


class Acceptor:
    """What the acceptor is given, which the test calls in its place, and what is asked of it."""

    def __init__(self, *listeners, **given):
        self.listeners = listeners
        self.__dict__.update(given)
        self.asked = []

    def begin_close(self):
        self.asked.append("begin_close")

    def close(self, seconds):
        self.asked.append(("close", seconds))

    def abandon(self):
        self.asked.append("abandon")


class Serving:
    """A node that serves, and what its listeners heard."""

    def __init__(self, options=None):
        self.node = Node(
            "server",
            reply=print,
            on_first_use=lambda: None,
            on_exit=lambda exc: None,
            floor=Floor(),
        )
        self.node.asks = Asking(self.node, lambda: None)
        self.node.notices = Notices("server")
        self.node.stage = Stage.OPEN
        self.node.announced = True
        self.heard, self.errors = queue.Queue(), queue.Queue()
        self.listen("error", lambda message, exc: self.errors.put(exc))
        self.server = Server(
            self.node, options or Options(), key=KEY, me=lambda pid: Identity(pid, 1, (3, 11), 1000)
        )
        self.server.begin(Listening(["a listener"], "its file"))
        self.acceptor = self.server._acceptor
        self.links = []
        self.peers = []

    def listen(self, event, listener=None):
        self.node.dispatcher.add(event, listener or (lambda message, *args: self.heard.put((event, *args))))

    def admit(self, identity, address=""):
        admitted = self.acceptor.admit(identity, b"", address, None)
        return admitted if isinstance(admitted, Refusal) else admitted[0]

    def connect(self, pid="client", incarnation=2, max_message=1 << 20):
        """Let a client in, as the acceptor does after its handshake; returns the socket that it has."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(CEILING)
        self.peers.append(theirs)
        identity = identity_of(pid, incarnation, max_message)
        self.acceptor.on_accepted(Accepted(Connection(ours.detach()), identity, pid, b"", Agreement()))
        return theirs

    def child(self, pid="client"):
        with self.node.lock:
            return self.node.router.child_link(pid)

    def settle(self):
        """Until all notices so far were told."""
        told = threading.Event()
        self.node.events.notify(told.set)
        assert told.wait(CEILING)

    def end(self):
        with self.node.lock:
            self.node.stage = Stage.CLOSED
            for link in self.links:
                link.end()
        for link in self.links:
            assert link.join(Deadline(CEILING))
        assert self.node.notices.close(Deadline(CEILING))
        for peer in self.peers:
            peer.close()


def identity_of(pid="client", incarnation=2, max_message=1 << 20):
    return Identity(pid, incarnation, (3, 11), max_message)


@pytest.fixture
def make(monkeypatch):
    made = []

    class Noted(Link):
        def __init__(self, *args):
            super().__init__(*args)
            made[-1].links.append(self)

    monkeypatch.setattr(module, "Acceptor", Acceptor)
    monkeypatch.setattr(module, "Link", Noted)

    def make(*args):
        made.append(Serving(*args))
        return made[-1]

    yield make
    for serving in made:
        serving.end()


@pytest.fixture
def serving(make):
    return make()


def send(sock, *records):
    frame = wire.encode(list(records))
    sock.sendall(wire.frame_header(len(frame)) + frame)


# Whom it lets in


def test_it_serves_once_it_has_the_listeners_with_its_key_and_its_name_of_the_moment(make):
    serving = make()
    unused = Server(serving.node, Options(), key=KEY, me=print)
    assert (unused.serves, serving.server.serves) == (False, True)
    assert (serving.acceptor.listeners, serving.acceptor.socket_file) == (("a listener",), "its file")
    assert (serving.acceptor.find_key(b""), serving.acceptor.find_key(b"a child's")) == (KEY, None)
    with serving.node.lock:
        serving.node.presence.rename("new")
    assert serving.acceptor.me().pid == "new"


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.OPEN])
def test_while_it_does_not_run_nobody_is_let_in(serving, stage):
    serving.node.stage = stage
    assert serving.admit(identity_of()) == Refusal("stopping", "the server is stopping")


def test_a_client_has_the_name_that_it_wants_or_that_of_its_address(serving):
    assert serving.admit(identity_of("resize")) == "resize"
    assert serving.admit(identity_of("", 3), "127.0.0.1:4711") == "127.0.0.1:4711"
    assert serving.admit(identity_of("", 4), "") == Refusal(
        "nameless", "a client over a path has to say its pid"
    )


@pytest.mark.parametrize("name", ["server", "client"])
def test_a_name_that_is_taken_gets_a_suffix(serving, name):
    serving.connect("client", 2)
    found = serving.admit(identity_of(name, 0xABCDEF123456))
    assert found == f"{name}-123456"


def test_a_client_that_connects_again_keeps_its_name_although_its_old_link_is_still_read(serving):
    serving.connect("client", 2)
    assert serving.admit(identity_of("client", 2)) == "client"
    assert serving.admit(identity_of("client", 3)) != "client"


def test_a_name_of_before_is_given_to_no_other_one(serving):
    serving.listen("offline")
    serving.admit(identity_of("client", 2))
    serving.connect("client", 2).close()
    serving.settle()
    assert serving.admit(identity_of("client", 3)) == "client-000003"


def test_a_server_of_too_many_names_lets_nobody_in(serving):
    serving.node.router.names.update(str(number) for number in range(MAX_ROUTE))
    assert serving.admit(identity_of()).cause == "names"


def few(make, most=2):
    return make(Options().merged(None, {"socket": {"maxLinks": most}}, started=False))


def test_more_clients_than_may_be_are_refused_and_both_ends_are_told_the_option(make):
    """D14: at most socket.maxLinks clients."""
    serving = few(make)
    serving.connect("first", 2)
    assert serving.admit(identity_of("second", 3)) == "second"
    serving.connect("second", 3)
    text = "2 clients already, which is its limit (socket.maxLinks)"
    assert serving.admit(identity_of("third", 4)) == Refusal("max-links", f"the server has {text}")
    serving.acceptor.on_refused("max-links", "127.0.0.1:4711")
    error = str(serving.errors.get(timeout=CEILING))
    assert error == f"a connection from 127.0.0.1:4711 was refused: max-links; this server has {text}"


def test_a_client_that_comes_back_has_its_place_also_where_all_are_taken(make):
    serving = few(make)
    serving.connect("first", 2)
    serving.connect("second", 3)
    assert serving.admit(identity_of("first", 2)) == "first"
    assert serving.admit(identity_of("first", 4)).cause == "max-links"


def test_the_place_of_a_client_that_has_gone_is_free_again(make):
    serving = few(make, 1)
    serving.listen("offline")
    peer = serving.connect("first", 2)
    assert serving.admit(identity_of("second", 3)).cause == "max-links"
    send(peer, (ONLINE, ("first",)))
    peer.close()
    assert serving.heard.get(timeout=CEILING) == ("offline", "first")
    assert serving.admit(identity_of("second", 3)) == "second"


def test_clients_that_are_not_attached_yet_count_as_well(make):
    serving = few(make)
    go = threading.Event()
    with serving.node.lock:
        serving.node.events.tell_offlines([lambda: go.wait(CEILING)])
    serving.connect("first", 2)
    serving.connect("second", 3)
    assert serving.child("first") is None
    assert serving.admit(identity_of("third", 4)).cause == "max-links"
    go.set()
    serving.settle()
    assert serving.admit(identity_of("third", 4)).cause == "max-links"


@pytest.mark.parametrize("cause", ["wrong-key", "version", HUNG_UP, EVICTED])
def test_who_was_refused_is_counted_and_told_of_unless_it_was_nobodys_fault(serving, cause):
    serving.acceptor.on_refused(cause, "127.0.0.1:4711")
    serving.settle()
    assert serving.node.refusals.counts == {cause: 1}
    if cause in (HUNG_UP, EVICTED):
        assert serving.errors.empty()
        return
    error = serving.errors.get_nowait()
    assert isinstance(error, LinkError)
    text = f"a connection from 127.0.0.1:4711 was refused: {cause}"
    assert str(error) == text + ("; both ends need the same socket.authkey" if cause == WRONG_KEY else "")


CAUSES = ("wrong-key", "version", "garbled", "timeout", "other-address", HUNG_UP, EVICTED)


def test_a_flood_of_strangers_delays_no_offline_while_a_listener_of_error_is_slow(serving):
    begun, go, order = threading.Event(), threading.Event(), queue.SimpleQueue()

    def slow(message, exc):
        order.put("error")
        begun.set()
        assert go.wait(CEILING)

    serving.listen("error", slow)
    serving.listen("offline", lambda message, pid: order.put("offline"))
    peer = serving.connect()
    link = serving.child()
    send(peer, (ONLINE, ("client",)))
    serving.acceptor.on_refused("wrong-key", "127.0.0.1:4711")
    assert begun.wait(CEILING)
    for number in range(500):
        for cause in CAUSES:
            serving.acceptor.on_refused(cause, f"127.0.0.1:{number}")
    peer.close()
    assert link.join(Deadline(CEILING))
    go.set()
    serving.settle()
    told = [order.get_nowait() for _ in range(order.qsize())]
    assert "offline" in told
    assert told.index("offline") <= 2 * len(CAUSES)
    assert sum(serving.node.refusals.counts.values()) == 1 + 500 * len(CAUSES)


def test_a_client_for_which_there_is_no_thread_is_refused_and_the_next_one_is_served(serving, monkeypatch):
    """B16: the system has no more threads; the server lives on."""

    def fails(*_, **__):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(link_module, "start_thread", fails)
        assert serving.connect().recv(1) == b""
    assert serving.node.refusals.counts == {"no-thread": 1}
    assert str(serving.errors.get(timeout=CEILING)) == "client client was refused: can't start new thread"
    serving.connect()
    assert serving.child() is not None


# A client in the tree


@pytest.mark.parametrize(("ours", "its"), [(2000, 5000), (5000, 2000)])
def test_a_client_is_a_child_whose_messages_are_as_large_as_both_ends_take(make, ours, its):
    options = Options().merged(None, {"socket": {"maxMessage": ours}}, started=False)
    serving = make(options)
    serving.connect(max_message=its)
    link = serving.child()
    assert (link.role, link.name, link.is_limited, link.limit) == ("client", "client", True, 2000)
    assert link.stream is not None


def test_what_a_client_sends_is_heard_and_its_end_is_told(serving):
    serving.listen("x")
    serving.listen("offline")
    peer = serving.connect()
    link = serving.child()
    send(peer, (ONLINE, ("client",)), (TO_PARENTS, ("client",), "x", None, [(1,)]))
    assert serving.heard.get(timeout=CEILING) == ("x", 1)
    peer.close()
    assert serving.heard.get(timeout=CEILING) == ("offline", "client")
    assert link.join(Deadline(CEILING))
    assert serving.child() is None
    assert link in serving.node.retired
    past = snapshot(serving.node, 0, int)["past"]
    assert (past["received"], past["receivedAs"]["delivered"]) == (1, 1)


def test_the_breach_of_a_client_is_an_error_and_ends_its_link(serving):
    peer = serving.connect()
    link = serving.child()
    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert "client sent what makes no sense" in str(serving.errors.get(timeout=CEILING))
    assert link.join(Deadline(CEILING))
    assert serving.child() is None


def test_a_client_that_breaks_its_connection_again_and_again_is_told_once_in_a_second_and_counted(serving):
    for _ in range(20):
        peer = serving.connect()
        link = serving.child()
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert link.join(Deadline(CEILING))
        peer.close()
    serving.settle()
    told = [str(serving.errors.get_nowait()) for _ in range(serving.errors.qsize())]
    assert "client sent what makes no sense" in told[0]
    assert len(told) < 20
    assert snapshot(serving.node, 0, int)["faults"] == {"ProtocolError": 20}


class Held:
    """The reader of a link, held in a listener of "hold"."""

    def __init__(self, serving, peer, pid="client"):
        self.begun, self.go = threading.Event(), threading.Event()

        def hold(message):
            self.begun.set()
            assert self.go.wait(CEILING)

        serving.listen("hold", hold)
        send(peer, (TO_PARENTS, (pid,), "hold", None, [()]))
        assert self.begun.wait(CEILING)


def test_a_client_that_is_back_comes_after_all_that_it_had_sent_before(serving):
    serving.listen("x")
    first = serving.connect()
    old = serving.child()
    held = Held(serving, first)
    send(first, (TO_PARENTS, ("client",), "x", None, [("before",)]))
    second = serving.connect()
    send(second, (TO_PARENTS, ("client",), "x", None, [("after",)]))
    assert serving.child() is old
    held.go.set()
    assert [serving.heard.get(timeout=CEILING) for _ in range(2)] == [("x", "before"), ("x", "after")]
    assert serving.child() not in (None, old)


def test_of_several_connections_of_a_client_the_newest_counts(serving):
    """B9: a process that connects again replaces its own connection."""
    first = serving.connect()
    held = Held(serving, first)
    second, third = serving.connect(), serving.connect()
    assert second.recv(1) == b"", "hung up"
    held.go.set()
    serving.listen("x")
    send(third, (TO_PARENTS, ("client",), "x", None, [(3,)]))
    assert serving.heard.get(timeout=CEILING) == ("x", 3)


def test_a_client_comes_after_the_offlines_that_are_being_told(serving):
    go = threading.Event()
    with serving.node.lock:
        serving.node.events.tell_offlines([lambda: go.wait(CEILING)])
    serving.connect()
    assert serving.child() is None
    go.set()
    serving.settle()
    assert serving.child() is not None


@pytest.mark.parametrize("why", ["stopping", "taken"])
def test_a_client_that_comes_too_late_is_hung_up(serving, why):
    go = threading.Event()
    with serving.node.lock:
        serving.node.events.tell_offlines([lambda: go.wait(CEILING)])
    peer = serving.connect()
    other = Link("client", serving.node.lock, print, print)
    serving.links.append(other)
    with serving.node.lock:
        if why == "stopping":
            serving.node.stage = Stage.STOPPING
        else:
            serving.node.router.add_child(other, "client")
    go.set()
    assert peer.recv(1) == b""
    serving.settle()
    assert serving.child() is (None if why == "stopping" else other)


# What ends it


def test_its_end_is_that_of_the_acceptor_and_of_clients_that_are_not_attached_yet(serving):
    serving.listen("x")
    first = serving.connect("first", 2)
    held = Held(serving, first, "first")
    successor = serving.connect("first", 2)
    go = threading.Event()
    with serving.node.lock:
        serving.node.events.tell_offlines([lambda: go.wait(CEILING)])
    arriving = serving.connect("second", 3)
    serving.server.begin_close()
    serving.server.close(Deadline(CEILING))
    begun, (name, seconds) = serving.acceptor.asked
    assert (begun, name, 0 < seconds <= CEILING) == ("begin_close", "close", True)
    assert (successor.recv(1), arriving.recv(1)) == (b"", b"")
    go.set()
    held.go.set()
    serving.settle()
    assert serving.child("second") is None


def test_without_a_deadline_it_waits_for_the_acceptor_as_long_as_that_takes_at_most(serving):
    serving.server.close(Deadline(None))
    assert serving.acceptor.asked == [("close", module.CLOSE_SECONDS)]


def test_before_it_serves_it_ends_at_once(serving):
    unused = Server(serving.node, Options(), key=KEY, me=print)
    unused.begin_close()
    unused.close(Deadline(0.0))
    unused.abandon()


def test_in_a_fork_the_copies_are_closed_and_the_parents_connections_live(serving):
    peer = serving.connect()
    link = serving.child()

    def forked():
        serving.server.abandon()
        assert serving.acceptor.asked == ["abandon"]
        assert link.stream.socket.fileno() == -1

    in_child(forked)
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):  # neither an end nor a reset
        peer.recv(1)
    assert link.stream.socket.fileno() >= 0


def test_a_session_that_has_ended_since_it_was_agreed_on_is_hung_up(serving):
    ours, theirs = socket.socketpair()
    before = threading.active_count()
    agreement = Agreement(None, 5, True)
    serving.acceptor.on_accepted(Accepted(Connection(ours.detach()), identity_of(), "client", b"", agreement))
    theirs.settimeout(CEILING)
    assert theirs.recv(1) == b""
    theirs.close()
    assert threading.active_count() == before
    assert serving.child() is None


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_a_client_for_which_nothing_is_left_leaves_no_thread_behind(serving, monkeypatch, error):
    def nothing_left(*args):
        raise error

    monkeypatch.setattr(module, "Stream", nothing_left)
    with pytest.raises(error):
        serving.connect()
    (link,) = serving.links
    assert link.join(Deadline(CEILING))
    assert serving.child() is None
