"""A link whose every change of state is compared with the tables of ``_core/link_state.py``."""

from __future__ import annotations

from ipevents._core.link_state import RIGHTS, SUMMONS
from ipevents._links.link import Link

TABLES = {"_right": RIGHTS, "_summons": SUMMONS}


class WatchedLink(Link):
    """``refused`` are the transitions that are in no table, ``seen`` all that there were."""

    def __init__(self, *args):
        object.__setattr__(self, "seen", set())
        super().__init__(*args)

    def __setattr__(self, name, value):
        if name in TABLES:
            before = getattr(self, name, value)
            if before is not value:
                self.seen.add((before, value))
        object.__setattr__(self, name, value)

    @property
    def refused(self):
        known = {(one, other) for table in TABLES.values() for one in table for other in table[one]}
        return self.seen - known
