"""Both sides of the handshake as state machines: a frame goes in, a frame or the outcome comes out.

::

    client                                server
    HELLO      who I am, nonce      ->
                                    <-    CHALLENGE  who I am, nonce, MAC "server"
    PROOF      MAC "client"         ->
                                    <-    WELCOME    your pid, MAC "welcome"    (or REFUSED)

Each MAC covers a label for its role and everything that was sent before it: version, key id, both identities,
both nonces and the address. So an answer is worth nothing in another role, direction, handshake or version;
that excludes reflection, replay and downgrade. The keys of the session come from all four frames, see
seal.py.

The address is what the client calls the server, and what the server's connection calls itself. The server
refuses a client that calls it otherwise, because then somebody is between the two, and he could read. He
cannot change the client's view of it on its way: the MAC of the server covers it. An end that cannot know, or
was told that a tunnel is there, says nothing (``b""``); the two have to agree in that, too.

Each end says whether it seals, as it does over TCP. If one of them does, both do: a tunnel may end in a path.

A client says whether it wants a session that outlives this connection, and which one it has. The server
answers with the session that this connection belongs to: the same one, which then goes on, another one, or
none.

Instead of any frame a REFUSED frame may come. It has no MAC, since an
attacker who could forge one could cut the connection as well. Its layout is the same in every version.

A frame has the form that ``Connection.send_bytes`` gives it. Pure, without clock or socket: the caller keeps
the deadline, and reads no byte beyond the end of a frame (:class:`FrameReader`).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from .._exceptions import AuthenticationFailed, LinkError, ProtocolError, shown
from .mac import MAC_BYTES, compare_digest, mac
from .messages import is_pid
from .seal import DirectionKeys, direction_keys

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FOREIGN_USER",
    "GARBLED",
    "HANDSHAKE_SECONDS",
    "HUNG_UP",
    "MAX_ADDRESS_BYTES",
    "MAX_HANDSHAKE_BYTES",
    "MIN_KEY_BYTES",
    "OTHER_ADDRESS",
    "REFUSED",
    "TIMEOUT",
    "VERSION",
    "WRONG_KEY",
    "Agreement",
    "ClientHandshake",
    "FrameReader",
    "Identity",
    "Refusal",
    "ServerHandshake",
    "Welcomed",
    "framed",
]

HANDSHAKE_SECONDS = 5.0  # for a whole handshake, at either end
MAX_HANDSHAKE_BYTES = 512
NONCE_BYTES = 32
MIN_KEY_BYTES = 16  # of any key: the option, the environment's, a derived one

# Why a handshake failed. Failed handshakes are counted by these causes, so no others occur. The first two may
# travel in a REFUSED frame; any other cause in such a frame arrives as REFUSED.
WRONG_KEY = "wrong-key"
VERSION = "version"
REFUSED = "refused"
GARBLED = "garbled"
TIMEOUT = "timeout"
HUNG_UP = "hung-up"
FOREIGN_USER = "foreign-user"
OTHER_ADDRESS = "other-address"

_MAGIC = b"ipev"
_PROTOCOL = 3
_HELLO, _CHALLENGE, _PROOF, _WELCOME, _REFUSED = range(1, 6)

_PREFIX = struct.Struct("!4sBB")  # magic, protocol, kind
_WHO = "65pQQBB32s"  # pid, incarnation, max_message, python major and minor, nonce
MAX_ADDRESS_BYTES = 51  # an IPv6 address in brackets, a colon and a port have 47
_LAYOUTS = {
    _HELLO: struct.Struct("!17p52p??Q" + _WHO),
    _CHALLENGE: struct.Struct("!?" + _WHO + "32s"),
    _PROOF: struct.Struct("!32s"),
    _WELCOME: struct.Struct("!65pQ32s"),
    _REFUSED: struct.Struct("!17p201p"),  # cause, text; never to be changed
}
_KEY_ID_BYTES, _PID_BYTES, _CAUSE_BYTES, _TEXT_BYTES = 16, 64, 16, 200

_LENGTH = struct.Struct("!i")  # before every frame, as multiprocessing.connection writes it


class Identity(NamedTuple):
    """What one end states about itself.

    ``pid`` has at most 64 characters of printable ASCII and no space; a client with "" asks to be named after
    its address.
    ``incarnation`` is the random 64-bit number of its emitter. ``python`` is the major and minor version.
    ``max_message`` is the largest record, in bytes, that this end accepts.
    """

    pid: str
    incarnation: int
    python: tuple[int, int]
    max_message: int


class Welcomed(NamedTuple):
    """The outcome for a client: the pid that it has from now on, and the identity of the server."""

    pid: str
    server: Identity


class Agreement(NamedTuple):
    """What the two ends have agreed on for a connection.

    ``keys`` are those to seal with, None where nothing is sealed. ``session`` is the number of the session, 0
    for none; ``resumes`` says that it has begun with an earlier connection.
    """

    keys: DirectionKeys | None = None
    session: int = 0
    resumes: bool = False


class Refusal(NamedTuple):
    """Why a client is not admitted: a cause of at most 16 bytes of ASCII, and a sentence for its user."""

    cause: str
    text: str = ""


def framed(frame: bytes) -> bytes:
    """Return ``frame`` as ``Connection.send_bytes`` would write it."""
    return _LENGTH.pack(len(frame)) + frame


class FrameReader:
    """Puts frames together from the pieces in which they arrive, and wants no byte beyond the current frame.

    The bytes that follow the handshake belong to another reader. So the caller reads at most ``missing``
    bytes, and passes them to :meth:`feed`.
    """

    __slots__ = ("_gathered", "_size")

    def __init__(self) -> None:
        self._gathered = b""
        self._size: int | None = None

    @property
    def missing(self) -> int:
        """How many bytes to read next: at least one, and none beyond the frame."""
        return (_LENGTH.size if self._size is None else self._size) - len(self._gathered)

    def feed(self, received: bytes) -> bytes | None:
        """Take at most ``missing`` bytes. Returns the frame that they complete, or None.

        Raises :exc:`ProtocolError` for a length that no handshake frame has, before anything is allocated for
        it.
        """
        assert len(received) <= self.missing
        self._gathered += received
        if self.missing:
            return None
        whole, self._gathered = self._gathered, b""
        if self._size is not None:
            self._size = None
            return whole
        (size,) = _LENGTH.unpack(whole)
        if not 0 < size <= MAX_HANDSHAKE_BYTES:
            raise ProtocolError(f"no handshake frame has {size} bytes")
        self._size = size
        return None


class _Side:
    """What both sides have in common: which frame may come next, and how a handshake fails.

    After ``receive`` has raised, ``cause`` is one of the causes above, and ``farewell`` is a frame that the
    caller sends before it closes the connection, or None.
    """

    __slots__ = ("_awaited", "_me", "_nonce", "_seals", "agreement", "cause", "farewell")

    def __init__(self, awaited: int, me: Identity, nonce: bytes, seals: bool) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self._awaited: int | None = awaited
        self._me = me
        self._nonce = nonce
        self._seals = seals
        self.agreement = Agreement()
        self.cause: str | None = None
        self.farewell: bytes | None = None

    def _opened(self, frame: bytes) -> tuple[Any, ...]:
        """Return the fields of the awaited frame. Raises if the frame is another one."""
        # None until the caller sets the next kind: so nothing is accepted after a failure or after the end.
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            raise self._failed(GARBLED, ProtocolError("the handshake had ended"))
        if not _PREFIX.size <= len(frame) <= MAX_HANDSHAKE_BYTES:
            raise self._failed(GARBLED, ProtocolError(f"no handshake frame has {len(frame)} bytes"))
        magic, protocol, kind = _PREFIX.unpack_from(frame)
        if magic != _MAGIC:
            raise self._failed(GARBLED, ProtocolError("it does not speak the protocol of ipevents"))
        if protocol != _PROTOCOL and kind != _REFUSED:
            text = f"the ends speak different protocols, {protocol} and {_PROTOCOL}: use one version"
            raise self._failed(VERSION, LinkError(text), Refusal(VERSION, text))
        layout = _LAYOUTS.get(kind)
        if kind not in (awaited, _REFUSED) or layout is None or len(frame) != _PREFIX.size + layout.size:
            raise self._failed(
                GARBLED, ProtocolError(f"a handshake frame of the kind {kind} in the place of {awaited}")
            )
        fields = layout.unpack_from(frame, _PREFIX.size)
        if kind == _REFUSED:
            raise self._refused(*fields)
        return fields

    def _refused(self, cause: bytes, text: bytes) -> LinkError:
        # These bytes are not authenticated: only known causes are used, and only printable text gets into an
        # exception or a log.
        why = "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))
        if cause == WRONG_KEY.encode():
            return self._failed(WRONG_KEY, _wrong_key())
        if cause == VERSION.encode():
            return self._failed(VERSION, LinkError(why or "the other end speaks another protocol"))
        return self._failed(REFUSED, LinkError(why or "the other end refused"))

    def _failed(self, cause: str, error: LinkError, farewell: Refusal | None = None) -> LinkError:
        """Set ``cause`` and ``farewell``, and return the error for the caller to raise."""
        self.cause = cause
        self.farewell = None if farewell is None else _refused_frame(farewell)
        return error

    def _identity(self, pid: bytes, incarnation: int, max_message: int, *python: int) -> Identity:
        return Identity(self._decoded(pid), incarnation, (python[0], python[1]), max_message)

    def _decoded(self, pid: bytes) -> str:
        """Return a pid as text. Raises ProtocolError for one that no process can have; "" is none at all."""
        text = pid.decode("ascii", "replace")  # by a character that no pid has
        if text and not is_pid(text):
            why = f"a pid is printable ASCII without spaces, and not {shown(pid)}"
            raise self._failed(GARBLED, ProtocolError(why), Refusal(GARBLED, why))
        return text


class ClientHandshake(_Side):
    """The side that has connected.

    The caller sends :meth:`hello`, passes each frame that arrives to :meth:`receive`, and sends what that
    returns, until ``outcome`` is set.

    ``key`` is the derived key, of at least 16 bytes. ``key_id`` names it to the server: ``b""`` for the key
    of the public socket, otherwise the id of the start of a child. ``nonce`` is 32 fresh random bytes.
    ``address`` is what this end calls the server, and ``seals`` says whether it seals, see the module.

    ``session`` is the number of the session that this end has, 0 if it wants a new one, None if it wants
    none.

    Once ``outcome`` is set, ``agreement`` holds.
    """

    __slots__ = ("_hello", "_key", "_key_id", "_server", "_session", "_transcript", "outcome")

    def __init__(
        self,
        key: bytes,
        key_id: bytes,
        me: Identity,
        nonce: bytes,
        *,
        address: bytes = b"",
        seals: bool = False,
        session: int | None = None,
    ) -> None:
        super().__init__(_CHALLENGE, me, nonce, seals)
        self._session = session
        self._key = _checked(key)
        if len(key_id) > _KEY_ID_BYTES:
            raise ValueError(f"a key id has at most {_KEY_ID_BYTES} bytes")
        self._key_id = key_id
        wanted = (session is not None, session or 0)
        self._hello = _frame(_HELLO, key_id, _checked_address(address), seals, *wanted, *_who(me), nonce)
        self._transcript: tuple[bytes, ...] = ()
        self._server: Identity | None = None
        self.outcome: Welcomed | None = None

    def hello(self) -> bytes:
        """Return the first frame, for the caller to send."""
        return self._hello

    def receive(self, frame: bytes) -> bytes | None:
        """Take the server's next frame. Returns the frame to send, or None.

        Raises :exc:`AuthenticationFailed` (different keys), :exc:`ProtocolError` (not the awaited frame) or
        :exc:`LinkError` (refused, with the server's reason). Then the caller sends ``farewell``, if there is
        one, and closes the connection.
        """
        fields = self._opened(frame)
        if self._server is None:
            return self._challenged(frame, fields)
        self._welcomed(frame, *fields)
        return None

    def _challenged(self, frame: bytes, fields: tuple[Any, ...]) -> bytes:
        """Check the server's MAC, and return the proof that this side has the key as well."""
        seals, *who, _nonce, theirs = fields
        said = (self._hello, frame[:-MAC_BYTES])
        if not compare_digest(theirs, _mac(self._key, b"server", *said)):
            raise self._failed(WRONG_KEY, _wrong_key(), Refusal(WRONG_KEY))
        self._server = self._identity(*who)
        self._seals = self._seals or seals
        proof = _frame(_PROOF, _mac(self._key, b"client", self._hello, frame))
        self._transcript = (self._hello, frame, proof)
        self._awaited = _WELCOME
        return proof

    def _welcomed(self, frame: bytes, pid: bytes, session: int, theirs: bytes) -> None:
        """Check the MAC of the last frame, and set the outcome."""
        said = (*self._transcript, frame[:-MAC_BYTES])
        if not compare_digest(theirs, _mac(self._key, b"welcome", *said)):
            raise self._failed(WRONG_KEY, _wrong_key())
        assert self._server is not None
        keys = _keys(self._key, *self._transcript, frame, is_client=True) if self._seals else None
        self.agreement = Agreement(keys, session, bool(session) and session == self._session)
        self.outcome = Welcomed(self._decoded(pid), self._server)


class ServerHandshake(_Side):
    """The side that has accepted a connection.

    The caller passes each frame to :meth:`receive` and sends what that returns. As soon as ``authenticated``
    is set (the client's identity and key id), it reads nothing more, decides, and sends :meth:`welcome` or
    :meth:`refuse`.

    ``find_key`` returns the key for a key id, or None. A client cannot see the difference between an unknown
    id and a wrong key. ``nonce`` is 32 fresh random bytes, which must stay secret: only hashes of them are
    sent. ``address`` is what the accepted connection calls itself, and ``seals`` says whether this end seals,
    see the module.

    ``session_wanted`` is what the client wants, as for :class:`ClientHandshake`.

    Once :meth:`welcome` was called, ``agreement`` holds.
    """

    __slots__ = (
        "_address",
        "_client",
        "_find_key",
        "_key",
        "_key_id",
        "_proof",
        "_transcript",
        "session_wanted",
    )

    def __init__(
        self,
        find_key: Callable[[bytes], bytes | None],
        me: Identity,
        nonce: bytes,
        *,
        address: bytes = b"",
        seals: bool = False,
    ) -> None:
        super().__init__(_HELLO, me, nonce, seals)
        self._address = _checked_address(address)
        self.session_wanted: int | None = None
        self._find_key = find_key
        self._key = b""
        self._key_id = b""
        self._client: Identity | None = None
        self._transcript: tuple[bytes, ...] = ()
        self._proof = b""

    @property
    def authenticated(self) -> tuple[Identity, bytes] | None:
        """The client's identity and key id. None until it has proved that it has the key."""
        if self._client is None or not self._proof:
            return None
        return self._client, self._key_id

    def receive(self, frame: bytes) -> bytes | None:
        """Take the client's next frame. Returns the frame to send, or None.

        Raises as :meth:`ClientHandshake.receive` does, and the caller then does the same.
        """
        fields = self._opened(frame)
        if self._client is None:
            return self._greeted(frame, *fields)
        self._proved(frame, *fields)
        return None

    def _greeted(
        self,
        hello: bytes,
        key_id: bytes,
        address: bytes,
        seals: bool,
        wants_session: bool,
        session: int,
        *fields: Any,
    ) -> bytes:
        """Note the client's identity, and return the challenge."""
        if address != self._address:
            text = (
                "the two ends call this connection by different addresses, so something is between them: if "
                "that is a tunnel or a port that is forwarded, let both set socket.forwarded=True"
            )
            raise self._failed(OTHER_ADDRESS, LinkError(text), Refusal(OTHER_ADDRESS, text))
        *who, _nonce = fields
        self._client = self._identity(*who)
        self._key_id = key_id
        key = self._find_key(key_id)
        # For an unknown key id the same steps follow with a key that no client has. It is a hash of the
        # secret nonce; what is sent as the nonce is another hash of it, and reveals nothing about that key.
        self._key = mac(self._nonce, b"decoy") if key is None else _checked(key)
        nonce = mac(self._nonce, b"nonce")
        unsigned = _frame(_CHALLENGE, self._seals, *_who(self._me), nonce, bytes(MAC_BYTES))[:-MAC_BYTES]
        challenge = unsigned + _mac(self._key, b"server", hello, unsigned)
        self._transcript = (hello, challenge)
        self._seals = self._seals or seals
        self.session_wanted = session if wants_session else None
        self._awaited = _PROOF
        return challenge

    def _proved(self, frame: bytes, theirs: bytes) -> None:
        if not compare_digest(theirs, _mac(self._key, b"client", *self._transcript)):
            raise self._failed(WRONG_KEY, _wrong_key(), Refusal(WRONG_KEY))
        self._proof = frame

    def welcome(self, pid: str, session: int = 0) -> bytes:
        """Return the last frame, by which the client is admitted and has the name ``pid`` from now on.

        The connection belongs to the session with this number; 0 for none.
        """
        self._assert_authenticated()
        said = (*self._transcript, self._proof)
        unsigned = _frame(_WELCOME, _encoded_pid(pid), session, bytes(MAC_BYTES))[:-MAC_BYTES]
        welcome = unsigned + _mac(self._key, b"welcome", *said, unsigned)
        keys = _keys(self._key, *said, welcome, is_client=False) if self._seals else None
        self.agreement = Agreement(keys, session, bool(session) and session == self.session_wanted)
        return welcome

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the last frame, by which the client learns that it is not admitted, and why."""
        self._assert_authenticated()
        return _refused_frame(refusal)

    def _assert_authenticated(self) -> None:
        if self.authenticated is None:
            raise RuntimeError("the client has not proved its key")


def _mac(key: bytes, label: bytes, *parts: bytes) -> bytes:
    return mac(key, b"ipevents handshake", label, *parts)


def _frame(kind: int, *fields: bytes | int) -> bytes:
    return _PREFIX.pack(_MAGIC, _PROTOCOL, kind) + _LAYOUTS[kind].pack(*fields)


def _refused_frame(refusal: Refusal) -> bytes:
    # The text may be cut inside a character: the peer replaces what it cannot decode.
    cause = refusal.cause.encode("ascii", "replace")[:_CAUSE_BYTES]
    return _frame(_REFUSED, cause, refusal.text.encode("utf-8", "replace")[:_TEXT_BYTES])


def _who(me: Identity) -> tuple[bytes, int, int, int, int]:
    return _encoded_pid(me.pid), me.incarnation, me.max_message, *me.python


def _encoded_pid(pid: str) -> bytes:
    """Return a pid as bytes. Raises ValueError if it is too long, which struct would cut silently."""
    raw = pid.encode("utf-8")
    if len(raw) > _PID_BYTES:
        raise ValueError(f"a pid has at most {_PID_BYTES} bytes: {pid!r}")
    return raw


def _keys(key: bytes, *frames: bytes, is_client: bool) -> DirectionKeys:
    """Return the keys of the session that begins with these frames of a handshake."""
    return direction_keys(key, _mac(key, b"transcript", *frames), is_client=is_client)


def _checked_address(address: bytes) -> bytes:
    """Return an address. Raises ValueError if it is too long, which struct would cut silently."""
    if len(address) > MAX_ADDRESS_BYTES:
        raise ValueError(f"an address has at most {MAX_ADDRESS_BYTES} bytes: {address!r}")
    return address


def _checked(key: bytes) -> bytes:
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"a key has at least {MIN_KEY_BYTES} bytes")
    return key


def _wrong_key() -> AuthenticationFailed:
    return AuthenticationFailed(
        "the two ends hold different keys: let both use the same socket.authkey, IPEVENTS_AUTHKEY or key file"
    )
