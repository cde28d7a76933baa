"""The options: their names, defaults and checks, and the conversion to the units of the package.

Everything about an option is one row of ``_TABLE``. In public, options have the spelling of the original for
Node, and times are milliseconds. An ``Options`` object has snake_case attributes and seconds. Only this file
converts.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping

from ._core.handshake import MIN_KEY_BYTES
from ._exceptions import OptionsError, shown
from ._platform.system import MAX_SOCKET_PATH_BYTES

# The longest timer of Node, 24.8 days. It is far below the longest wait of the threading module.
_MAX_MILLISECONDS = 2**31 - 1
# The same in seconds. A longer timeout for a stop is cut to this.
MAX_STOP_SECONDS = _MAX_MILLISECONDS / 1000
_MIN_HANG_SECONDS = 0.1  # a system that is busy may keep a process from running for longer
_MAX_SECONDS = float(2**31)  # 68 years: a longer wait is no different
# Below the first not even a long path of pids has room. Above the second, multiprocessing.connection uses
# another frame header.
_MIN_MESSAGE_BYTES = 1024
_MAX_MESSAGE_BYTES = 2**31 - 1

START_VARIABLE = "IPEVENTS_START"
_SOCKET_PATH = "socket.socketPath"

_WRONG = object()


# Checks. Each takes a public value and returns the converted one, or _WRONG. A bool is no number here.


def _restart(value: object) -> object:
    if isinstance(value, bool):
        return value
    return "on-failure" if isinstance(value, str) and value == "on-failure" else _WRONG


def _boolean(value: object) -> object:
    return value if isinstance(value, bool) else _WRONG


def _integer(least: int, most: float) -> Callable[[object], object]:
    def check(value: object) -> object:
        if isinstance(value, bool):
            return _WRONG
        try:
            whole = operator.index(value)  # type: ignore[arg-type]  # accepts the integers of numpy, which are no int
        except Exception:  # no whole number; an __index__ of the user may raise anything
            return _WRONG
        return whole if least <= whole <= most else _WRONG

    return check


def _number(value: object) -> float | None:
    """Return a real number of any kind (numpy, Fraction, Decimal) as a float; None for other values."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, int | float):
        import numbers  # late: rarely needed

        if not isinstance(value, numbers.Number) or isinstance(value, complex):
            return None
    try:
        return float(value)  # type: ignore[arg-type]  # other complex numbers raise
    except OverflowError:  # a whole number, or a fraction, of more than 300 digits
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # it is one of those
    except Exception:  # Decimal("sNaN"), or a type of the user, which may raise anything
        return None


def _none_or(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def _milliseconds(value: object) -> object:
    """Check a time in milliseconds and convert it to seconds. The comparison is false for NaN."""
    number = _number(value)
    return number / 1000 if number is not None and 0 <= number <= _MAX_MILLISECONDS else _WRONG


def _hang_timeout(value: object) -> object:
    """Check how long a listener may run, in milliseconds, and convert it to seconds; None for 0 and None."""
    if value is None:
        return None
    converted = _milliseconds(value)
    if converted is _WRONG or converted == 0:
        return _WRONG if converted is _WRONG else None
    return converted if float(converted) >= _MIN_HANG_SECONDS else _WRONG  # type: ignore[arg-type]  # it is a float


def _start_method(value: object) -> object:
    return str(value) if isinstance(value, str) and value in ("spawn", "forkserver") else _WRONG


def _first_start_method(given: str | None) -> str:
    """Return the start method where no option sets one: that of the environment, if there is one."""
    if given and _start_method(given) is _WRONG:
        text = f'the environment variable {START_VARIABLE} must be "spawn" or "forkserver", not '
        raise OptionsError(text + shown(given))
    return given or "forkserver"


def _text(value: object) -> object:
    return str(value) if isinstance(value, str) and value and "\0" not in value else _WRONG


def _socket_path(value: object) -> object:
    """Check a path and make it absolute: when it is used, the working directory may be another one.

    A process that becomes a daemon changes it, for example. Raises OptionsError if a relative path cannot be
    made absolute, or is too long then.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or _text(path) is _WRONG:
        return _WRONG
    absolute = path
    if not os.path.isabs(path):
        try:
            # Not abspath(), which removes ".." without regard to symbolic links.
            absolute = os.path.join(os.getcwd(), path)
        except FileNotFoundError as error:
            text = (
                f"option {_SOCKET_PATH!r} cannot be the relative path {shown(path)}: the working directory "
            )
            raise OptionsError(text + "was removed; give an absolute path") from error
    size = len(os.fsencode(absolute))
    if size <= MAX_SOCKET_PATH_BYTES:
        return str(absolute)
    if absolute == path:
        return _WRONG
    raise OptionsError(
        f"option {_SOCKET_PATH!r} must be a path of at most {MAX_SOCKET_PATH_BYTES} bytes; {shown(path)} is "
        f"{absolute!r:.4200} here and has {size}"
    )


def _authkey(value: object) -> object:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes | bytearray):
        return _WRONG
    # bytes(), because multiprocessing's AuthenticationString is a subclass that refuses to be pickled.
    return bytes(value) if len(value) >= MIN_KEY_BYTES else _WRONG


class _Option:
    """One row: public name, attribute of ``Options``, public default, check, and the right values in words.

    ``later``: the option may change after ``start()``, for later children. ``secret``: no text shows its
    value.
    """

    __slots__ = ("attribute", "check", "default", "later", "name", "right", "secret")

    def __init__(
        self,
        name: str,
        attribute: str,
        default: object,
        check: Callable[[object], object],
        right: str,
        *,
        later: bool = False,
        secret: bool = False,
    ) -> None:
        self.name = name
        self.attribute = attribute
        self.default = default
        self.check = check
        self.right = right
        self.later = later
        self.secret = secret

    def converted(self, value: object) -> object:
        """Return ``value`` in the units of the package. Raises OptionsError if it is wrong."""
        try:
            result = self.check(value)
        except UnicodeEncodeError:  # a lone surrogate in a path or key
            result = _WRONG
        if result is _WRONG:
            raise OptionsError(f"option {self.name!r} must be {self.right}, not {self._shown(value)}")
        return result

    def _shown(self, value: object) -> str:
        """Return a wrong value as the text of an error shows it: of a secret only type and length."""
        if self.secret:
            size = f" of {len(value)}" if isinstance(value, str | bytes | bytearray) else ""
            return f"{type(value).__name__}{size}"
        return shown(value)


_TIME = f"a number of milliseconds from 0 to {_MAX_MILLISECONDS}"
_TRUE_OR_FALSE = "True or False"

_TABLE = (
    _Option("restart", "restart", True, _restart, 'True, False or "on-failure"', later=True),
    _Option("delayRestart", "delay_restart", 1000, _milliseconds, _TIME, later=True),
    _Option(
        "maxRestarts",
        "max_restarts",
        None,
        _none_or(_integer(1, math.inf)),
        "a whole number from 1 on, or None for no limit",
        later=True,
    ),
    _Option("useSocket", "use_socket", True, _boolean, _TRUE_OR_FALSE),
    _Option("stopTimeout", "stop_timeout", 8000, _milliseconds, _TIME, later=True),
    _Option("stopGrace", "stop_grace", 1000, _milliseconds, _TIME, later=True),
    _Option(
        "leaveTimeout",
        "leave_timeout",
        None,
        _none_or(_milliseconds),
        f"{_TIME}, or None for no limit",
        later=True,
    ),
    _Option(
        "hangTimeout",
        "hang_timeout",
        None,
        _hang_timeout,
        f"a number of milliseconds from 100 to {_MAX_MILLISECONDS}, or 0 or None for no limit",
        later=True,
    ),
    _Option(
        "startMethod",
        "start_method",
        _first_start_method(os.environ.get(START_VARIABLE)),
        _start_method,
        '"spawn" or "forkserver" ("fork" copies a process whose threads hold locks: such children hang)',
    ),
    _Option(
        _SOCKET_PATH,
        "socket_path",
        None,
        _none_or(_socket_path),
        f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes, or None for TCP",
    ),
    _Option("socket.port", "port", 7100, _integer(1, 65535), "a whole number from 1 to 65535"),
    _Option("socket.host", "host", "localhost", _text, "the name or address of a host"),
    _Option("socket.reconnect", "reconnect", True, _boolean, _TRUE_OR_FALSE),
    _Option("socket.delayReconnect", "delay_reconnect", 3000, _milliseconds, _TIME),
    _Option("socket.onlyConnect", "only_connect", False, _boolean, _TRUE_OR_FALSE),
    _Option("socket.allowRemote", "allow_remote", False, _boolean, _TRUE_OR_FALSE),
    _Option("socket.forwarded", "forwarded", False, _boolean, _TRUE_OR_FALSE),
    _Option("socket.resumeWithin", "resume_within", 30_000, _milliseconds, _TIME),
    _Option("socket.deadAfter", "dead_after", 30_000, _milliseconds, _TIME),
    _Option(
        "socket.authkey",
        "authkey",
        None,
        _none_or(_authkey),
        f"bytes or a str, at least {MIN_KEY_BYTES} bytes long, or None",
        secret=True,
    ),
    _Option(
        "socket.maxMessage",
        "max_message",
        16 * 1024 * 1024,
        _integer(_MIN_MESSAGE_BYTES, _MAX_MESSAGE_BYTES),
        f"a whole number of bytes from {_MIN_MESSAGE_BYTES} to {_MAX_MESSAGE_BYTES}",
    ),
    _Option("socket.maxLinks", "max_links", 1024, _integer(1, math.inf), "a whole number from 1 on"),
)
_BY_NAME = {option.name: option for option in _TABLE}
_DEFAULTS = {option.attribute: option.converted(option.default) for option in _TABLE}
_SOCKET = "socket"


class Options:
    """All options of one emitter, checked and converted: times in seconds, sizes in bytes. Immutable.

    ``Options()`` has the defaults, ``merged()`` returns other options. The key is not in the repr and is left
    out when the options are pickled.
    """

    __slots__ = tuple(option.attribute for option in _TABLE)

    restart: bool | str
    delay_restart: float
    max_restarts: int | None
    use_socket: bool
    stop_timeout: float
    stop_grace: float
    leave_timeout: float | None
    hang_timeout: float | None
    start_method: str
    socket_path: str | None
    port: int
    host: str
    reconnect: bool
    delay_reconnect: float
    only_connect: bool
    allow_remote: bool
    forwarded: bool
    resume_within: float
    dead_after: float
    authkey: bytes | None
    max_message: int
    max_links: int

    def __init__(self, converted: Mapping[str, object] | None = None) -> None:
        """Take values that are converted already, by attribute. For ``merged()`` and pickle."""
        for attribute, value in (_DEFAULTS | dict(converted or {})).items():
            object.__setattr__(self, attribute, value)

    def merged(
        self, mapping: Mapping[str, object] | None, options: Mapping[str, object], *, started: bool
    ) -> Options:
        """Return other options: these, overridden by those in ``mapping``, and then by those in ``options``.

        Both have public names and units; either may have a mapping ``socket``, which overrides single fields.
        Raises OptionsError for an unknown name or a wrong value, and if ``started`` for a change that could
        not take effect any more. An option may always be set to the value that it has.
        """
        given: dict[str, object] = {}
        for layer in (mapping, options):
            if layer is not None:
                given.update(_flat(layer))

        changed = self._values()
        for name, value in given.items():
            option = _BY_NAME[name]
            converted = option.converted(value)
            if started and not option.later and converted != changed[option.attribute]:
                raise OptionsError(f"option {name!r} can no longer take effect: start() was called already")
            changed[option.attribute] = converted
        return Options(changed)

    def _values(self) -> dict[str, object]:
        return {attribute: getattr(self, attribute) for attribute in _DEFAULTS}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Options are immutable; merged() returns others")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Options are immutable; merged() returns others")

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Options) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._values().values()))

    def __reduce__(self) -> tuple[type[Options], tuple[dict[str, object]]]:
        return Options, (self._values() | {"authkey": None},)

    def __repr__(self) -> str:
        shown = {**self._values(), "authkey": "set" if self.authkey else None}
        return f"<Options {' '.join(f'{name}={value!r}' for name, value in shown.items())}>"


def seconds(value: object, most: float = _MAX_SECONDS) -> float | None:
    """Return a ``timeout`` in seconds, cut to ``most``; None stays None, whose meaning depends on the call.

    Raises TypeError or ValueError with the value in the text. A bool is no number here either.
    """
    right = "a timeout is a number of seconds from 0 on, or None"
    if value is None:
        return None
    number = _number(value)
    if number is None:
        raise TypeError(f"{right}, not {shown(value)}")
    if not number >= 0:  # NaN as well
        raise ValueError(f"{right}, not {shown(value)}")
    return min(number, most)


def child_options(restart: object, delayRestart: object, defaults: Options) -> tuple[bool | str, float]:
    """Return the restart policy of one child and its delay in seconds.

    ``restart`` and ``delayRestart`` (milliseconds) are what ``worker()`` or ``fork()`` was given; for None
    the value of ``defaults`` is taken. Raises OptionsError for a wrong value.
    """
    options = {"restart": restart, "delayRestart": delayRestart}
    given = {name: value for name, value in options.items() if value is not None}
    chosen = defaults.merged(None, given, started=True)
    return chosen.restart, chosen.delay_restart


def child_grace(stopGrace: object, defaults: Options) -> float:
    """Return the seconds that the program of one child may take to notice a stop.

    ``stopGrace`` (milliseconds) is what ``worker()`` or ``fork()`` was given; for None the value of
    ``defaults`` is taken. Raises OptionsError for a wrong value.
    """
    given = {} if stopGrace is None else {"stopGrace": stopGrace}
    return defaults.merged(None, given, started=True).stop_grace


def child_hang_timeout(hangTimeout: object, defaults: Options) -> float | None:
    """Return for how many seconds a listener of one child may run; None for no limit.

    ``hangTimeout`` (milliseconds, 0 for no limit) is what ``worker()`` or ``fork()`` was given; for None the
    value of ``defaults`` is taken. Raises OptionsError for a wrong value.
    """
    given = {} if hangTimeout is None else {"hangTimeout": hangTimeout}
    return defaults.merged(None, given, started=True).hang_timeout


def _flat(layer: Mapping[str, object]) -> dict[str, object]:
    """Return the options in ``layer`` by their names in the table. Raises OptionsError for unknown ones."""
    if not isinstance(layer, Mapping):
        raise OptionsError(f"options() takes a mapping and keywords, not {type(layer).__name__}")
    flat: dict[str, object] = {}
    for name, value in layer.items():
        if name != _SOCKET:
            # Only the table writes a field of socket with a dot; the caller has to nest it.
            if name not in _BY_NAME or "." in name:
                raise _unknown(name)
            flat[name] = value
            continue
        if not isinstance(value, Mapping):
            raise OptionsError(f"option 'socket' must be a mapping of fields, not {type(value).__name__}")
        for field, field_value in value.items():
            full = f"{_SOCKET}.{field}"
            if full not in _BY_NAME:
                raise _unknown(full)
            flat[full] = field_value
    return flat


def _unknown(name: object) -> OptionsError:
    """Return the error for a name that is not in the table. Its text has the nearest known name."""
    import difflib  # late: it is slow to import, and only an error needs it

    text = str(name)
    field = text.removeprefix(f"{_SOCKET}.")
    if f"{_SOCKET}.{field}" in _BY_NAME:
        return OptionsError(f"unknown option {text!r}, write socket={{{field!r}: ...}}")
    if field in _BY_NAME:
        return OptionsError(f"unknown option {text!r}, write {field}=... outside of socket")
    folded = {known.casefold(): known for known in _BY_NAME}
    # Fields of socket under their bare names as well, in case the caller has forgotten `socket`.
    folded |= {known.removeprefix(f"{_SOCKET}.").casefold(): known for known in _BY_NAME}
    near = difflib.get_close_matches(text.casefold(), folded, n=1)
    if near:
        return OptionsError(f"unknown option {text!r}, did you mean {folded[near[0]]!r}?")
    return OptionsError(f"unknown option {text!r}; the known ones are {', '.join(_BY_NAME)}")
