"""The thread that writes what sending threads leave in the outbox of a link.

How it ends. It blocks in ``send``, which the shutdown of the socket ends, and on ``_wakeup``, which
``Link.end`` releases. After either it finds ``ended`` and returns.

Over TCP it also looks, every few seconds while something is on its way, whether the peer is still alive:
``send`` returns after a while in which it could send nothing, and the wait on ``_wakeup`` has an end then.
"""

from __future__ import annotations

import errno
import socket
from _thread import get_ident
from collections import deque

from .._core.link_state import Right, Summons
from .._core.window import Frame
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.threads import start_thread
from .._transport.stream import WAITING, Stream, send_parts, shut_down
from .outlet import Outlet

log = Log("ipevents.link")

LINGER_SECONDS = 0.002  # how long a listener's record may wait for the frame's end (README, Flow)
LINGER_ROUNDS = 10  # looks of the thread that find nothing, before it sleeps until it is woken
_NOTHING_AGAIN: deque[Frame] = deque()  # never changed
# Plain names, as in outlet.py.
_FREE, _WRITING, _LEFT = Right.FREE, Right.WRITING, Right.LEFT
_ASLEEP, _LINGERS, _CALLED, _PROMPTED = Summons.ASLEEP, Summons.LINGERS, Summons.CALLED, Summons.PROMPTED


class Writer(Outlet):
    """An outlet with a thread. See ``outlet.py`` for the locks, the right to write and signals."""

    def _start_writer(self) -> None:
        """Start the writer thread. ``Link`` calls this when it starts its reader thread."""
        self._writer = start_thread(f"writer-{self.name}", self._write_loop)

    def _write_loop(self) -> None:
        """Write whenever the link is prompted or a deferred record is due. The body of the writer thread.

        Once a listener has called it, it looks again every LINGER_SECONDS, without being woken; after
        LINGER_ROUNDS looks that found nothing it sleeps until it is woken. A prompt wakes it in any case.
        """
        wait: float | None = None
        quiet = LINGER_ROUNDS
        while True:
            got = self._wakeup.acquire(timeout=-1 if wait is None else wait)
            with self._lock:
                before, self._summons = self._summons, _LINGERS
                if not got and (before is _PROMPTED or before is _CALLED):
                    self._wakeup.acquire()  # released between our time-out and now
                if self.ended:
                    self._end_writer()
                    return
                stream = self.stream
                resuming = self.resuming
                self._look(stream or resuming)
                due = 0.0 if stream is None else stream.handled.due
                if stream is not None and due and due <= monotonic():
                    stream.handled.due = 0.0
                    if stream.handled.is_unsaid:
                        self.outbox.put_acknowledgement(*stream.handled.say())
                        before = _PROMPTED
                waits = bool(self.outbox.count) and stream is not None and not stream.failed
                left = LINGER_SECONDS
                writes = self._right is _LEFT
                if waits and self._right is _FREE:
                    left = self._deferred_at + LINGER_SECONDS - monotonic()
                    if before is _PROMPTED or left <= 0.0:
                        writes = bool(self._take_out())
                        left = LINGER_SECONDS
                if writes:
                    self._owner = get_ident()
                    self._right = _WRITING  # LEFT or CLAIMED -> WRITING
                elif resuming is not None and not resuming.written and self._right is _FREE:
                    self._encode_resumed(resuming)
                    stream, writes = resuming, True
                self.attended = self._right is not _FREE
                quiet = 0 if before is _CALLED or (waits and not writes) else quiet + (not got)
                if resuming is not None and not resuming.written:
                    quiet = 0  # a thread still has the right to write that it had for the connection before
                wait = left if quiet < LINGER_ROUNDS else None
                self._summons = _LINGERS if wait is not None else _ASLEEP
                if stream is not None and stream.handled.due:  # asked once more: it may have come just now
                    left = max(0.0, stream.handled.due - monotonic())
                    wait = left if wait is None else min(wait, left)
            if writes:
                self._write_all(stream)
            stream = stream or resuming
            if stream is not None and stream.is_watched:
                left = max(0.0, stream.look_at - monotonic())
                wait = left if wait is None else min(wait, left)

    def _look(self, stream: Stream | None) -> None:
        """Look whether the peer is alive, where it is time for that, and end the connection if not.

        Lock held, or the right to write, so that the socket is open.
        """
        if stream is None or not stream.is_watched:
            return
        if stream.failed:
            stream.unwatch()
            return
        now = monotonic()
        if now >= stream.look_at and not stream.look(now):
            self._write_failed(stream, TimeoutError(errno.ETIMEDOUT, "no answer"))

    def _watch(self, stream: Stream, now: float) -> None:
        """Begin a watch, or look whether the peer is alive. The caller holds the right to write.

        Raises OSError for a dead peer.
        """
        if not stream.is_watched:
            stream.watch(now)
        elif not stream.look(now):
            raise TimeoutError(errno.ETIMEDOUT, "no answer")

    def _end_writer(self) -> None:
        """Count a frame that was left to the writer thread as lost: the link has ended.

        Lock held, in that thread.
        """
        if self._right is _LEFT:
            self._forget_frame()
            self._release_writing()
        self._close_dead()

    def _write_all(self, stream: Stream | None) -> None:
        """Write until the outbox is empty, then give the right to write back. The caller holds that right."""
        while True:
            again: deque[Frame] = _NOTHING_AGAIN
            if stream is not None and stream is self._claimed_for and not stream.failed:
                try:
                    again = self._again  # the reader replaces it with the connection
                    if again and not self._rest:
                        self._encode_again(again)
                    elif self.outbox.taken:
                        self._encode()
                    while self._rest:
                        send_parts(stream, self._rest, WAITING, self._sent_now)
                        now = monotonic()
                        if self._sent_now:
                            self._note_sent()
                            self.progress = self._last_write = now
                        if now > stream.look_at:
                            self._watch(stream, now)
                except OSError as exc:
                    self._write_failed(stream, exc)
                except Exception:  # no memory for the frame, or a fault of the library
                    log.exception("! writing to %s failed, and the connection ends", self.title)
                    stream.failed = True
                    if again:  # it would fail with each connection of this session, so no other follows
                        with self._lock:
                            stream.window.trim(0)
                    shut_down(stream.socket, socket.SHUT_RDWR)  # our reader closes it
            with self._lock:
                if self._rest or self.outbox.taken:
                    self._forget_frame()
                if self._may_go_on and self.resuming is not None and self.resuming.written:
                    self._go_on()
                stream = self.stream
                if stream is not None and self._again and not (stream.failed or self.ended):
                    self._claimed_for = stream
                    continue
                if stream is None or stream.failed or not self.outbox.count or self.ended:
                    self._release_writing()
                    return
                self._take_out()
                self._right = _WRITING  # CLAIMED -> WRITING
