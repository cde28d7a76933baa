"""One end of a link, with real threads and no node."""

from __future__ import annotations

import queue
import threading
from multiprocessing.connection import Connection

from watched import WatchedLink

from ipevents._core.decisions import Plan
from ipevents._core.messages import BROADCAST, PAYLOADS
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream

CEILING = 10.0  # reached only in a deadlock


class End:
    """A link that notes what comes, and sends as the library does."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.RLock()
        self.records = queue.Queue()
        self.closed = queue.Queue()
        self.on_record = None
        self.link = WatchedLink(name, self.lock, self._received, self._closed)
        self._headers = {}

    def _received(self, link, records, size):
        for record in records:
            self.records.put(record)
            if self.on_record is not None:
                self.on_record(record)

    def _closed(self, link, error):
        self.closed.put(error)

    def attach(self, sock, limit=None, dead_after=0.0):
        with self.lock:
            self.link.attach(Stream(Connection(sock.detach()), limit, dead_after=dead_after))

    def put(self, event, payload=(), size=10):
        """State lock held: something waits, and nobody writes it yet."""
        header = self._headers.setdefault(event, (BROADCAST, (self.name,), None))  # a record for each event
        assert self.link.outbox.offer(Plan(header=header, event=event), payload, size)

    def send(self, event, payload=(), size=10):
        """As an application thread does."""
        with self.lock:
            self.put(event, payload, size)
            records = None if self.link.attended else self.link.claim()
        if records is not None:
            self.link.write_now(records)

    def next_record(self):
        return self.records.get(timeout=CEILING)

    def next_messages(self, count):
        """The next messages: event and payload of each."""
        found = []
        while len(found) < count:
            record = self.next_record()
            found += [(record[2], payload) for payload in record[PAYLOADS]]
        return found

    def next_closed(self):
        return self.closed.get(timeout=CEILING)

    def end(self):
        with self.lock:
            self.link.end()
        assert self.link.join(Deadline(CEILING)), "a thread of the link does not end"
        assert self.link.refused == set()
