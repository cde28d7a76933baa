"""One process's place in the tree, put together from its parts.

``Node`` joins the pure router with links and listeners. Two rules hold it together (README, How it is built):
outboxes are filled under the state lock, and listeners are called outside of it. node_state.py has what the
parts share:

    local_events   events of this process, for its own listeners
    presence       what the neighbours know of this process
    outgoing       what user code sends
    incoming       what arrives over a link
    errors         what goes wrong
    refusals       connections that were refused
"""

from __future__ import annotations

from collections.abc import Callable

from .._dispatch.dispatcher import Dispatcher
from .._dispatch.floor import Floor, process_floor
from .errors import Errors
from .incoming import Incoming
from .local_events import LocalEvents
from .node_state import NodeState
from .outgoing import Outgoing
from .presence import Presence
from .refusals import Refusals


class Node(NodeState):
    """The parts of one node, and the dispatcher that calls its listeners. This class only assembles them.

    - ``on_first_use()`` is called before a send of a process that has not announced its ``online``.
    - ``on_exit(exc)`` is called when a listener raised SystemExit.
    - ``on_unheard()`` is called when an event has no listener any more.
    - ``reply(pids, event, args, kwargs)`` is what Message.reply calls.
    """

    def __init__(
        self,
        pid: str,
        *,
        reply: Callable[..., None],
        on_first_use: Callable[[], None],
        on_exit: Callable[[SystemExit], None],
        on_unheard: Callable[[], None] = lambda: None,
        floor: Floor = process_floor,
    ) -> None:
        super().__init__(pid, reply, on_first_use)
        self.errors = Errors(self)
        self.fail = self.errors.fail
        self.error = self.errors.report
        self.peer_error = self.errors.report_peer
        self.events = LocalEvents(self)
        self.refusals = Refusals(self, self.errors)
        self.presence = Presence(self, self.events, on_unheard)
        self.outgoing = Outgoing(self, self.events, self.presence)
        self.incoming = Incoming(self, self.presence, self.outgoing)
        self.dispatcher = Dispatcher(
            on_interest=self.presence.interest_changed,
            on_failure=self.errors.listener_failed,
            on_exit=on_exit,
            on_idle=self.outgoing.write_dirty,
            floor=floor,
        )
