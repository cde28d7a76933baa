"""The options: names, defaults, what is right, and the units the rest of the package counts in.

Everything about an option is one row of ``_TABLE``. In public, names have the original's spelling and
times are milliseconds; an ``Options`` has snake_case attributes and seconds. Converted here only.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping

from ._core.handshake import MIN_KEY_BYTES
from ._exceptions import OptionsError, shown
from ._platform.system import MAX_SOCKET_PATH_BYTES

# Node's longest timer, 24.8 days; far below what threading can wait for.
_MAX_MILLISECONDS = 2**31 - 1
# The same in seconds: the longest that a stop may take, whatever it was given.
MAX_STOP_SECONDS = _MAX_MILLISECONDS / 1000
_MAX_SECONDS = float(2**31)  # 68 years: nobody sees the end of a longer wait
# Below this not even a long path of pids has room; above it multiprocessing has another frame header.
_MIN_MESSAGE_BYTES = 1024
_MAX_MESSAGE_BYTES = 2**31 - 1

START_VARIABLE = "IPEVENTS_START"
_SOCKET_PATH = "socket.socketPath"

_WRONG = object()


# Checks: the public value in, the converted one out, or _WRONG. bool is not a number here.


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
            whole = operator.index(value)  # type: ignore[arg-type]  # also of numpy, whose integers are no int
        except Exception:  # no whole number; what is somebody else's __index__ raises what it likes
            return _WRONG
        return whole if least <= whole <= most else _WRONG

    return check


def _number(value: object) -> float | None:
    """Any real number as a float: also of numpy, a Fraction, a Decimal. None for what is none."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, int | float):
        import numbers  # late, for the uncommon ones

        if not isinstance(value, numbers.Number) or isinstance(value, complex):
            return None
    try:
        return float(value)  # type: ignore[arg-type]  # complex numbers of other kinds have none
    except OverflowError:  # a whole number, or a fraction, of more than 300 digits
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # it is one of those
    except Exception:  # a number that is none (Decimal("sNaN")), or somebody else's that raises what it likes
        return None


def _none_or(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def _milliseconds(value: object) -> object:
    """Milliseconds in, seconds out. The comparison is false for NaN."""
    number = _number(value)
    return number / 1000 if number is not None and 0 <= number <= _MAX_MILLISECONDS else _WRONG


def _start_method(value: object) -> object:
    return str(value) if isinstance(value, str) and value in ("spawn", "forkserver") else _WRONG


def _first_start_method(given: str | None) -> str:
    """Return the start method where no option sets one: that of the environment, if there is one."""
    if given and _start_method(given) is _WRONG:
        text = f'the environment variable {START_VARIABLE} must be "spawn" or "forkserver", not '
        raise OptionsError(text + shown(given))
    return given or "spawn"


def _text(value: object) -> object:
    return str(value) if isinstance(value, str) and value and "\0" not in value else _WRONG


def _socket_path(value: object) -> object:
    """A path in, an absolute one out: the directory may be another one when it is used, in a daemon say."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or _text(path) is _WRONG:
        return _WRONG
    absolute = path
    if not os.path.isabs(path):
        try:
            # Not abspath(): what ".." means after a symbolic link is the system's to say.
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
    # bytes() also turns multiprocessing's AuthenticationString into what it holds.
    return bytes(value) if len(value) >= MIN_KEY_BYTES else _WRONG


class _Option:
    """One row: the public name, the attribute, the public default, the check, what is right in words.

    ``later``: it may change after ``start()``, for later children. ``secret``: its value is never shown.
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
        """Return ``value`` in the package's units; OptionsError if it is wrong."""
        try:
            result = self.check(value)
        except UnicodeEncodeError:  # a lone surrogate in a path or key
            result = _WRONG
        if result is _WRONG:
            raise OptionsError(f"option {self.name!r} must be {self.right}, not {self._shown(value)}")
        return result

    def _shown(self, value: object) -> str:
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
)
_BY_NAME = {option.name: option for option in _TABLE}
_DEFAULTS = {option.attribute: option.converted(option.default) for option in _TABLE}
_SOCKET = "socket"


class Options:
    """All options of one emitter, checked and converted. Immutable; ``merged()`` returns another one.

    Times are seconds, sizes bytes. ``Options()`` has the defaults. The key is in no repr, and stays
    behind when the options are pickled.
    """

    __slots__ = tuple(option.attribute for option in _TABLE)

    restart: bool | str
    delay_restart: float
    max_restarts: int | None
    use_socket: bool
    stop_timeout: float
    stop_grace: float
    leave_timeout: float | None
    start_method: str
    socket_path: str | None
    port: int
    host: str
    reconnect: bool
    delay_reconnect: float
    only_connect: bool
    authkey: bytes | None
    max_message: int

    def __init__(self, converted: Mapping[str, object] | None = None) -> None:
        """``converted``: values by attribute, as this class holds them; for ``merged()`` and pickle."""
        for attribute, value in (_DEFAULTS | dict(converted or {})).items():
            object.__setattr__(self, attribute, value)

    def merged(
        self, mapping: Mapping[str, object] | None, options: Mapping[str, object], *, started: bool
    ) -> Options:
        """Return these options with those of ``mapping``, then ``options``, put over them field by field.

        ``socket`` is merged by field as well. Public names and units. OptionsError for an unknown name
        or a wrong value, and, if ``started``, for a change that could no longer take effect. Setting an
        option to the value it has is always allowed. These options are unchanged in any case.
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
    """Return what was given as a ``timeout``: seconds, ``most`` of them, or None for what that means there.

    Raises TypeError or ValueError, naming the value. bool is not a number here either.
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
    """Return the restart policy and the delay in seconds of one child.

    ``restart`` and ``delayRestart`` (milliseconds) as they were given to ``worker()`` or ``fork()``, or
    set on the child; None takes that of ``defaults``. OptionsError for a wrong value.
    """
    options = {"restart": restart, "delayRestart": delayRestart}
    given = {name: value for name, value in options.items() if value is not None}
    chosen = defaults.merged(None, given, started=True)
    return chosen.restart, chosen.delay_restart


def child_grace(stopGrace: object, defaults: Options) -> float:
    """Return the seconds that one child may take to notice a stop.

    ``stopGrace`` (milliseconds) as it was given to ``worker()`` or ``fork()``; None takes that of
    ``defaults``. OptionsError for a wrong value.
    """
    given = {} if stopGrace is None else {"stopGrace": stopGrace}
    return defaults.merged(None, given, started=True).stop_grace


def _flat(layer: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``layer`` under the names of the table; OptionsError for an unknown one."""
    if not isinstance(layer, Mapping):
        raise OptionsError(f"options() takes a mapping and keywords, not {type(layer).__name__}")
    flat: dict[str, object] = {}
    for name, value in layer.items():
        if name != _SOCKET:
            # A dot is the table's spelling of a nested field, not one the caller may write.
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
    """Return the error for a name that is not in the table, with the nearest one that is."""
    import difflib  # late: slow to import, needed for an error only

    text = str(name)
    field = text.removeprefix(f"{_SOCKET}.")
    if f"{_SOCKET}.{field}" in _BY_NAME:
        return OptionsError(f"unknown option {text!r}, write socket={{{field!r}: ...}}")
    if field in _BY_NAME:
        return OptionsError(f"unknown option {text!r}, write {field}=... outside of socket")
    folded = {known.casefold(): known for known in _BY_NAME}
    # A field is as near by its own name, so that a forgotten `socket` is found too.
    folded |= {known.removeprefix(f"{_SOCKET}.").casefold(): known for known in _BY_NAME}
    near = difflib.get_close_matches(text.casefold(), folded, n=1)
    if near:
        return OptionsError(f"unknown option {text!r}, did you mean {folded[near[0]]!r}?")
    return OptionsError(f"unknown option {text!r}; the known ones are {', '.join(_BY_NAME)}")
