"""Whether and when a child that has ended is started again.

``RestartPolicy`` keeps the history of one child. The supervisor reports each start and each exit to it, and
gets ``Restart``, ``GiveUp`` or ``NoRestart`` for the latter. Times are monotonic seconds and are handed in.

A death within ``YOUNG_SECONDS`` of the start is called *young*. After each further young death in a row the
child waits longer, so that a program that cannot run does not keep the machine busy. A longer life resets
that.
"""

from __future__ import annotations

YOUNG_SECONDS = 10.0
# After each of the first four young deaths in a row, the child waits no longer than ``delayRestart`` says: so
# one that crashes several times while its code is being worked on comes back promptly.
PATIENT_DEATHS = 4
BACKOFF_MIN_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 30.0
# 0.1 s doubled nine times is more than 30 s. A limit for the exponent, which would grow without end.
_DOUBLINGS_MAX = 9


class RestartDecision:
    """What to do about a child that has ended. Immutable; equal if type and fields are.

    Not a dataclass: that module imports ``inspect``, which takes a tenth of the time in which a child starts.
    """

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RestartDecision):
            return type(self) is type(other) and self._fields() == other._fields()
        return NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._fields()))})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")


class Restart(RestartDecision):
    """Start it again ``after`` seconds, counted from its exit."""

    __slots__ = ("after",)
    __match_args__ = ("after",)
    after: float

    def __init__(self, after: float) -> None:
        object.__setattr__(self, "after", after)


class GiveUp(RestartDecision):
    """Do not start it again, and report that: it has died young ``deaths`` times in a row."""

    __slots__ = ("deaths",)
    __match_args__ = ("deaths",)
    deaths: int

    def __init__(self, deaths: int) -> None:
        object.__setattr__(self, "deaths", deaths)


class NoRestart(RestartDecision):
    """Do not start it again. There is nothing to report."""

    __slots__ = ()


class RestartPolicy:
    """The restarts of one child. Not thread-safe: the caller holds its state lock.

    ``policy``: True (restart after every exit), False (never) or ``"on-failure"``. ``delay``: seconds from
    the exit to the restart. ``max_restarts``: after so many young deaths in a row it gives up; None for
    never. All three may be set at any time and apply from the next exit on. The caller has checked the
    values.
    """

    __slots__ = ("_started", "delay", "max_restarts", "policy", "young_deaths")

    def __init__(self, policy: bool | str, delay: float, max_restarts: int | None) -> None:
        self.policy = policy
        self.delay = delay
        self.max_restarts = max_restarts
        self.young_deaths = 0  # in a row
        self._started: float | None = None

    def started(self, now: float) -> None:
        """Note a start at ``now``. To be called before each ``exited()``, also if the start itself failed."""
        self._started = now

    def exited(
        self,
        now: float,
        exitcode: int | None,
        *,
        finished: bool,
        wanted: bool,
        refused: bool,
        explicit: bool,
    ) -> RestartDecision:
        """Note an exit at ``now`` and decide what follows.

        ``exitcode`` is multiprocessing's; None if it is not known, which counts as a failure.
        ``finished``: the child's function returned, and nothing kept the process. ``wanted``: the end was
        asked for (``Child.stop``, ``Child.kill``). ``refused``: the child reported that it cannot work where
        it is. ``explicit``: ``restart=True`` was given for this child itself, not by the option.

        An exit without a ``started`` before it counts as a young death.
        """
        lived = 0.0 if self._started is None else now - self._started
        self._started = None
        self.young_deaths = self.young_deaths + 1 if lived < YOUNG_SECONDS else 0

        final = (
            wanted
            or refused
            or self.policy is False
            or (self.policy == "on-failure" and exitcode == 0)
            or (finished and not explicit)
        )
        if final:
            return NoRestart()
        if self.max_restarts is not None and self.young_deaths >= self.max_restarts:
            return GiveUp(self.young_deaths)
        return Restart(self._wait())

    def _wait(self) -> float:
        """Return the seconds to wait after the latest death; never less than ``delay``."""
        doublings = self.young_deaths - PATIENT_DEATHS - 1
        if doublings < 0:
            return self.delay
        first = max(2 * self.delay, BACKOFF_MIN_SECONDS)
        grown = first * (1 << min(doublings, _DOUBLINGS_MAX))
        return max(self.delay, min(grown, BACKOFF_MAX_SECONDS))
