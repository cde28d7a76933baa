"""How an emitter opens: ``start()``, the first ``worker()``, and what happens where a ``stop()`` meets them.

The table in ``_core/state.py`` has the states and the ways between them; here are the steps. A stop may come
at any moment, in any thread. Which of the two wins is decided under the state lock:

- While start() only joins the socket (JOINING), a stop makes the emitter CLOSED at once and breaks the dial
  off. The starting thread finds that its attempt is over, closes what it has joined, and returns.
- While threads run (STARTING, STARTED) the supervisor carries the stop out. Its first step takes
  ``building``, which the starting thread holds from its last look at the state until the socket is served and
  known to the emitter. So the stop finds either nothing of the socket or all of it.

Locks, in this order: ``_starting``, the floor, ``building``, the state lock. ``_starting`` lets one thread
through ``start`` at a time; its owner may wait for the socket, for listeners and for a stop, so no listener
waits for it. ``building`` guards the steps between two states; a thread that holds it waits for no listener
and no peer, only for the start of threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._core.router import Router
from .._core.state import Event, Stage, State
from .._dispatch.notices import Notices
from .._exceptions import Closed
from .._platform import allocator, hooks, streams
from .._platform.latches import Latch, acquire_from_user, let_go
from .._platform.threads import Deadline
from .life import JOIN_SECONDS

if TYPE_CHECKING:
    from .._network.client import Arrival, Client
    from .._network.public_socket import PublicSocket
    from .._processes.supervisor import Supervisor
    from .._transport.dial import Attempt
    from .._transport.join import Joined
    from .life import Life

UNDO_SECONDS = 1.0  # for the threads of a start that failed; they wait for nothing


class _Overtaken(Exception):
    """A stop was faster than this start: what was opened is given back, and start() returns."""


class Try:
    """One call of start(), from START to its outcome. ``over`` is set when nothing of it is left.

    A stop that meets it sets ``is_overtaken``; the starting thread reads that under the state lock.
    """

    __slots__ = ("again", "attempt", "has_begun", "has_opened", "is_overtaken", "over")

    def __init__(self, again: bool) -> None:
        self.again = again  # it begins another life where the one before was asked to stop
        self.has_begun = False  # the state is this call's, until its outcome
        self.is_overtaken = False  # by a stop; written under the state lock
        self.attempt: Attempt | None = None  # the dial, which a stop breaks off
        self.has_opened = False  # the threads are this call's
        self.over = Latch()

    def break_off(self) -> None:
        """Let a connect or a handshake that is going on fail at once.

        After ``overtake``, without the state lock.
        """
        if self.attempt is not None:
            self.attempt.break_off()


class Opening:
    """The start of one emitter, and its renewal for another life.

    Where a step is interrupted, by Ctrl-C in a signal handler, say, what it has opened is closed again.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self._starting = threading.RLock()
        self.building = threading.RLock()
        self.undoes = False  # the stop that is going on undoes a start that has failed
        self._try: Try | None = None  # of the start that is going on; guarded by the state lock

    # The threads

    def open(self) -> None:
        """Start the threads of a life, so that children become possible. Idempotent.

        Raises the system's error where it has no thread or no descriptor, and then nothing is open. Raises
        Closed while the emitter stops and afterwards, ForkedError in a forked process.
        """
        node = self._life.node
        outer = node.inside()
        try:
            with self.building:
                if node.stage is Stage.OPEN:
                    return
                if node.stage is not Stage.NEW:
                    raise node.stage_error()
                try:
                    self._open_threads()
                except _Overtaken:
                    raise Closed("the emitter was stopped") from None
        except BaseException:  # of a signal handler, perhaps
            node.let_go(outer)
            raise

    def _open_threads(self) -> None:
        """Start the notices thread and, in a top process, the supervisor. ``building`` held.

        A child starts its supervisor later, when it has the link to its parent. Raises _Overtaken where a
        stop came first.
        """
        life = self._life
        node = life.node
        from .._transport import private_directory  # late: an emitter that never opens does without

        streams.occupy()
        allocator.keep_freed()
        if not life.is_child:
            private_directory.sweep()
        notices = supervisor = None
        outer = node.inside()
        try:
            notices = Notices(node.router.pid)
            supervisor = life.make_supervisor()
            if not life.is_child:
                supervisor.begin()
                hooks.opened(life)
            with node.lock:
                if node.state.allows(Event.OPENED):
                    node.announced = False
                    node.notices = notices
                    life.supervisor = supervisor
                    node.change(Event.OPENED)
                elif node.stage is not Stage.OPEN:  # a stop() has met start(), which opens nothing now
                    raise _Overtaken
            if life.supervisor is not supervisor:  # a signal handler has opened the emitter meanwhile
                self._discard(notices, supervisor)
        except BaseException:  # no thread, no descriptor, or Ctrl-C
            node.let_go(outer)
            if node.stage is Stage.OPEN and life.supervisor is supervisor:
                raise  # of a signal handler, when all was open
            if life.supervisor is supervisor:
                node.notices = life.supervisor = None
            if life.supervisor is None:
                hooks.closed(life)
            self._discard(notices, supervisor)
            raise

    def _discard(self, notices: Notices | None, supervisor: Supervisor | None) -> None:
        """End threads that no other code has yet."""
        if supervisor is not None:
            supervisor.discard(Deadline(UNDO_SECONDS))
        if notices is not None:
            notices.close(Deadline(UNDO_SECONDS))

    # start()

    def start(self, again: bool = True) -> None:
        """Start the emitter, see ``Emitter.start``. One thread at a time.

        Without ``again`` it does nothing where a stop was asked for, however late that came.

        A signal handler that finds the state lock held by its own thread has the start made when that is
        released.
        """
        node = self._life.node
        if node.inside():
            node.defer(self.start, again)
            return
        starting = self._starting
        if starting._is_owned():  # type: ignore[attr-defined]  # as threading.Condition does
            self._start(again)  # called by a listener, or a signal handler, in a start() of this thread
            return
        try:
            # A listener does not wait for the thread that starts, which may wait for listeners to end.
            if not starting.acquire(blocking=False):
                if node.dispatcher.runs_here():
                    return
                acquire_from_user(starting)
            self._start(again)
            starting.release()
        except BaseException:  # of a signal handler, at any place; what start() raises, too
            let_go(starting)
            raise

    def _start(self, again: bool) -> None:
        """Start the emitter as the role of this process asks for it.

        ``_starting`` held, and not the state lock.
        """
        try:
            if self._life.is_child:
                self._start_child()
            else:
                self._start_top(again)
        except BaseException:  # also of a signal handler, which may leave the lock owned
            self._life.node.let_go(False)
            raise

    def _start_child(self) -> None:
        """Start a child: announce ``ready`` and ``online``. Its link is open already, since ``connect``."""
        node = self._life.node
        with node.lock:
            if node.state.state is State.OPEN:
                node.change(Event.START)
                node.change(Event.JOINED)
            elif node.state.state is not State.STOPPING or self._life.ready_said:
                return  # it has started, or is about to end
        self._announce(None)

    def _begin_start(self, mine: Try) -> bool:
        """Make ``mine`` the start that is going on. Returns whether there is anything to start.

        A stop that is going on is waited for: the last call counts. Raises Closed where this thread must not
        wait.
        """
        life = self._life
        node = life.node
        while True:
            with node.lock:
                state = node.state.state
                if state is State.FORKED:
                    raise node.stage_error()
                asked = life.stopping.is_set()
                if asked and not mine.again:
                    return False
                if state in (State.JOINING, State.STARTING, State.STARTED) and not asked:
                    return False  # called once more, or by a listener or a signal handler within start()
                if (state in (State.NEW, State.CLOSED) or not asked) and self._try is None:
                    former = life.supervisor if asked else None
                    if asked:
                        self.renew(node.router.pid)
                    self._try, mine.has_begun = mine, True  # first: if change() is interrupted, it is undone
                    node.change(Event.START)
                    break
                is_within = self._try is not None
            if is_within or not life.may_wait():
                raise Closed("the emitter is stopping; start() can follow when it is stopped")
            life.wait_over(None)
        if former is not None and life.may_wait():
            former.join(Deadline(JOIN_SECONDS))  # for its last lines: no later stop knows that thread
        return True

    def renew(self, pid: str) -> None:
        """Forget the life before, all but listeners and options. State lock held."""
        life = self._life
        node = life.node
        life.public_socket = life.supervisor = None  # first: see request_stop() in a signal handler
        node.dispatcher.ended = None
        node.router = Router(pid, node.router.version + 1)
        node.announced = False
        life.exit = None
        life.ready_said = life.stopping_said = life.had_pool = False
        life.stopping, life.stopped = Latch(), Latch()
        life.asks.renew()
        self.undoes = False

    def _start_top(self, again: bool) -> None:
        """Start a top process.

        Where it fails, what this call has opened is closed again. Where a stop was faster, it just returns.
        """
        mine = Try(again)
        try:
            if self._begin_start(mine):
                self._join(mine)
            self._finish(mine)
        except BaseException as exc:  # of the dial, of a system that has no thread, or of a signal handler
            self._life.node.let_go(False)
            try:
                if isinstance(exc, _Overtaken) or (mine.is_overtaken and isinstance(exc, Exception)):
                    return  # a stop was faster, and broke the dial off
                self._fail(mine)
            finally:
                self._finish(mine)
            raise

    def _join(self, mine: Try) -> None:
        """Join the public socket if the options want one, build on it, and announce this process.

        The floor is held from before the socket is served until our own ``ready`` and ``online`` were
        delivered.
        """
        life = self._life
        node = life.node
        public_socket = joined = arrival = None
        is_built = False
        inside, outer = node.inside(), node.dispatcher.entered()
        try:
            if life.options.use_socket:
                # Late: what starts most often are children, which have no public socket.
                from .._network.public_socket import PublicSocket
                from .._transport.dial import Attempt

                streams.occupy()
                mine.attempt = Attempt()
                if self._is_over(mine):  # read after the line above: a stop breaks off the attempt it finds
                    return
                public_socket = PublicSocket(node, life.options, life.incarnation, say_ready=life.say_ready)
                joined = public_socket.join(mine.attempt)
            node.dispatcher.enter()  # events of processes that connect now come after our ready and online
            arrival = self._build(mine, public_socket, joined)
            is_built = True
            self._finish(mine)
            if public_socket is None or public_socket.client is None or arrival is not None:
                self._announce(arrival)
            node.dispatcher.leave()
        except BaseException:  # of a listener of ready, a failed start, or a signal handler
            node.let_go(inside)
            node.dispatcher.leave_to(outer)
            if joined is not None and not is_built and life.public_socket is not public_socket:
                joined.close()  # no other code has it yet; or _build has closed it already
            if public_socket is not None and public_socket.client is not None and arrival is not None:
                public_socket.client.missed(arrival)
            raise

    def _build(self, mine: Try, public_socket: PublicSocket | None, joined: Joined | None) -> Arrival | None:
        """Open the threads if need be, and serve the socket.

        Returns the connection to a server if there is one.

        Raises _Overtaken where a stop was faster. If this raises, what was joined is closed.
        """
        life = self._life
        node = life.node
        inside = node.inside()
        arrival = None
        try:
            with self.building:
                if self._is_over(mine):
                    raise _Overtaken
                if node.stage is Stage.NEW:
                    mine.has_opened = True  # first: where this is interrupted, it is undone
                    self._open_threads()
                if public_socket is not None and joined is not None:
                    arrival = public_socket.begin(joined)
                with node.lock:
                    life.public_socket = public_socket
                    life.is_grand_master = public_socket is None or public_socket.client is None
                    if public_socket is not None and public_socket.client is not None and arrival is None:
                        node.announced = True  # sends wait in the link; online follows the connection
                    node.change(Event.JOINED)
        except BaseException:  # a stop, a system that has no thread, or a signal handler
            node.let_go(inside)
            if node.state.state is not State.STARTED or life.public_socket is not public_socket:
                life.public_socket, life.is_grand_master = None, False  # no other code has it yet
                if public_socket is not None and joined is not None:
                    public_socket.give_up(joined, arrival)
            elif public_socket is not None and public_socket.client is not None and arrival is not None:
                public_socket.client.missed(arrival)  # all is open but for the connection
            raise
        return arrival

    def _finish(self, mine: Try) -> None:
        """Note that nothing is left of a start that a stop would have to wait for.

        Listeners may still be running.
        """
        with self._life.node.lock:
            if self._try is mine:
                self._try = None
        mine.over.set()

    def _is_over(self, mine: Try) -> bool:
        """Return whether a stop has ended this start. Takes the state lock."""
        with self._life.node.lock:
            return mine.is_overtaken

    def _fail(self, mine: Try) -> None:
        """Put the emitter back into the state that it had before this start, which has failed.

        Threads that this start has opened are ended by a stop of its own. What ``worker()`` has opened stays.
        """
        life = self._life
        node = life.node
        with node.lock:
            if not mine.has_begun or mine.is_overtaken or not node.state.allows(Event.FAILED):
                return  # start() had opened everything; a listener of ready has let Ctrl-C through, say
            node.change(Event.FAILED)
            supervisor = life.supervisor
        if not mine.has_opened or supervisor is None or supervisor.children:
            return  # what worker() has opened stays
        self.undoes = True
        life.request_stop(0.0)
        if life.may_wait() and life.wait_over(UNDO_SECONDS):
            with node.lock:
                if node.state.allows(Event.UNDONE):
                    self.renew(node.router.pid)
                    node.change(Event.UNDONE)

    # The stop, as far as it concerns a start

    def overtake(self) -> Try | None:
        """End the start that is going on, because of a stop, and return it; None if there is none.

        State lock held.

        The caller breaks it off after the release of the lock.
        """
        mine = self._try
        if mine is not None:
            mine.is_overtaken = True
        return mine

    # Forks

    def belongs_to_a_fork(self) -> bool:
        """Return whether the emitter is a forked process's own, because nothing of it ran.

        In a process made by os.fork(). A start() that another thread was about to make does not go on in this
        process.
        """
        life = self._life
        node = life.node
        starts = self._starting._is_owned()  # type: ignore[attr-defined]  # as threading.Condition does
        if node.state.state is State.JOINING and not starts:
            node.change(Event.FAILED)
        elif node.state.state is State.CLOSED and not starts and not life.is_child:
            node.change(Event.UNDONE)
        if node.state.state is not State.NEW:
            return False
        self._starting, self.building = threading.RLock(), threading.RLock()
        self._try = None
        return True

    # ready and online

    def _announce(self, arrival: Arrival | None) -> None:
        """Deliver ``ready`` here, send our interest and ``online`` upwards, then deliver ``online`` here.

        The floor is held meanwhile, so the parent's answer is delivered after our own online. A stop may
        begin in between, in a listener of ready or elsewhere. A child still announces its online then,
        because what waits for that is delivered. A top process announces nothing more: no process waits for
        its online.
        """
        life = self._life
        node = life.node
        client = None if life.public_socket is None else life.public_socket.client
        if client is not None and arrival is not None:
            with node.lock:
                client.take_name(arrival)
        outer = node.dispatcher.entered()
        try:
            node.dispatcher.enter()
            self._say(client, arrival)
            node.dispatcher.leave()
        except BaseException:  # of a listener, or of a signal handler
            node.dispatcher.leave_to(outer)
            raise

    def _say(self, client: Client | None, arrival: Arrival | None) -> None:
        """Carry out the steps of ``_announce``, in that order. The floor is held."""
        life = self._life
        node = life.node
        life.say_ready()
        with node.lock:
            if node.stage is not Stage.OPEN and not (life.is_child and node.stage is Stage.STOPPING):
                if arrival is not None:
                    arrival.stream.socket.close()
                return
            if client is not None and arrival is not None:
                client.attach(arrival.stream)
            elif not node.announced:
                node.presence.announce()
        if not life.is_quiet:
            node.events.deliver("online")
        node.incoming.held.online_said.set()
