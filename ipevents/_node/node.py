"""One process's place in the tree, put together from its parts.

Joins the pure router with links and listeners. The rules that hold it together (README, How it is built):
outboxes are filled under the state lock, listeners are called outside it. What the parts share is in
node_state.py.

    local_events   events of this process, for its own listeners
    presence       what the neighbours know of this process
    outgoing       what user code sends
    incoming       what arrives over a link
    errors         what goes wrong
"""

from __future__ import annotations

from collections.abc import Callable

from .._core.messages import Record
from .._dispatch.dispatcher import Dispatcher
from .._dispatch.floor import Floor, process_floor
from .._links.link import Link
from .errors import Errors
from .incoming import Incoming
from .local_events import LocalEvents
from .node_state import NodeState
from .outgoing import Outgoing
from .presence import Presence


class Node(NodeState):
    """See the module. ``on_control(link, record)`` gets the control records that concern processes; it is
    called in the link's reader. ``on_first_use()`` is called before a send of a process that has not said
    its ``online``; ``on_exit(exc)`` when a listener raised SystemExit; ``on_unheard()`` when an event has no
    listener any more. ``reply(pids, event, args, kwargs)`` is what Message.reply calls.
    """

    def __init__(
        self,
        pid: str,
        *,
        reply: Callable[..., None],
        on_control: Callable[[Link, Record], None],
        on_first_use: Callable[[], None],
        on_exit: Callable[[SystemExit], None],
        on_unheard: Callable[[], None] = lambda: None,
        floor: Floor = process_floor,
    ) -> None:
        super().__init__(pid, reply, on_first_use)
        self.errors = Errors(self)
        self.fail = self.errors.fail
        self.error = self.errors.report
        self.events = LocalEvents(self)
        self.presence = Presence(self, self.events, on_unheard)
        self.outgoing = Outgoing(self, self.events, self.presence)
        self.incoming = Incoming(self, self.presence, self.outgoing, on_control)
        self.dispatcher = Dispatcher(
            on_interest=self.presence.interest_changed,
            on_failure=self.errors.listener_failed,
            on_exit=on_exit,
            on_idle=self.outgoing.write_dirty,
            floor=floor,
        )
