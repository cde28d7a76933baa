from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import handshake as hs
from ipevents._core.handshake import (
    Agreement,
    ClientHandshake,
    FrameReader,
    Identity,
    Refusal,
    ServerHandshake,
    Welcomed,
    framed,
)
from ipevents._exceptions import AuthenticationFailed, LinkError, ProtocolError

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SERVER = Identity("4711", 2**64 - 1, (3, 12), 16 << 20)
CLIENT = Identity("4712", 7, (3, 10), 1 << 20)
PREFIX = 6


def client(key=KEY, key_id=b"", me=CLIENT, nonce=b"c" * 32, address=b"127.0.0.1:5000", seals=True):
    return ClientHandshake(key, key_id, me, nonce, address=address, seals=seals)


def server(keys=None, me=SERVER, nonce=b"s" * 32, address=b"127.0.0.1:5000", seals=True):
    find = {b"": KEY, b"start": OTHER_KEY}.get if keys is None else keys.get
    return ServerHandshake(find, me, nonce, address=address, seals=seals)


def exchanged(one, other, pid="4712"):
    """All frames of a handshake that succeeds: hello, challenge, proof, welcome."""
    hello = one.hello()
    challenge = other.receive(hello)
    proof = one.receive(challenge)
    assert other.receive(proof) is None
    welcome = other.welcome(pid)
    assert one.receive(welcome) is None
    return hello, challenge, proof, welcome


def passed_on(one, other, tamper):
    """A handshake through somebody in the middle, who gets each frame and its number, from 0."""
    challenge = other.receive(tamper(0, one.hello()))
    proof = one.receive(tamper(1, challenge))
    other.receive(tamper(2, proof))
    one.receive(tamper(3, other.welcome("4712")))


def test_both_ends_learn_who_the_other_is():
    one, other = client(), server()
    exchanged(one, other, pid="4712-3fa9c2")
    assert one.outcome == Welcomed("4712-3fa9c2", SERVER)
    assert other.authenticated == (CLIENT, b"")


def test_both_ends_have_the_same_keys_for_the_session_and_each_connection_other_ones():
    pairs = []
    for nonces in ((b"c", b"s"), (b"C", b"s"), (b"c", b"S")):
        one, other = client(nonce=nonces[0] * 32), server(nonce=nonces[1] * 32)
        assert (one.agreement, other.agreement) == (Agreement(), Agreement())
        exchanged(one, other)
        assert one.agreement.keys == other.agreement.keys[::-1]
        pairs += one.agreement.keys
    assert len(set(pairs)) == 6


@pytest.mark.parametrize("theirs", [b"127.0.0.1:5001", b"[::1]:5000", b""])
def test_ends_that_call_their_connection_differently_have_somebody_between_them(theirs):
    one, other = client(address=theirs), server()
    with pytest.raises(LinkError, match="forwarded=True"):
        other.receive(one.hello())
    assert other.cause == hs.OTHER_ADDRESS
    with pytest.raises(LinkError, match="forwarded=True"):
        one.receive(other.farewell)
    assert one.cause == hs.REFUSED
    assert (one.outcome, other.authenticated) == (None, None)


def test_who_is_between_them_cannot_change_what_the_client_calls_the_server():
    one, other = client(address=b"127.0.0.1:6000"), server()
    hello = one.hello().replace(b"127.0.0.1:6000", b"127.0.0.1:5000")
    with pytest.raises(AuthenticationFailed):
        one.receive(other.receive(hello))


def test_with_a_tunnel_both_say_nothing_of_the_address():
    one, other = client(address=b""), server(address=b"")
    exchanged(one, other)
    assert one.outcome is not None


def test_an_address_that_is_too_long_is_not_cut():
    for make in (client, server):
        with pytest.raises(ValueError, match="at most 51 bytes"):
            make(address=b"x" * 52)


def test_a_child_is_known_by_the_key_of_its_start():
    one, other = client(OTHER_KEY, b"start"), server()
    exchanged(one, other)
    assert other.authenticated == (CLIENT, b"start")


def test_a_client_may_ask_for_the_name_of_its_address():
    one, other = client(me=CLIENT._replace(pid="")), server()
    exchanged(one, other, pid="10.0.0.1:5000")
    assert one.outcome.pid == "10.0.0.1:5000"


def test_no_outcome_before_the_last_frame():
    one, other = client(), server()
    challenge = other.receive(one.hello())
    assert other.authenticated is None
    proof = one.receive(challenge)
    assert one.outcome is None
    other.receive(proof)
    assert other.authenticated is not None


def test_no_frame_is_larger_than_the_limit():
    widest = Identity("p" * 64, 2**64 - 1, (255, 255), 2**64 - 1)
    one = client(key_id=b"i" * 16, me=widest)
    other = server({b"i" * 16: KEY}, me=widest)
    frames = exchanged(one, other, pid="p" * 64)
    frames += (other.refuse(Refusal("c" * 16, "t" * 1000)),)
    assert max(map(len, frames)) <= hs.MAX_HANDSHAKE_BYTES


def test_a_wrong_key_is_told_to_both_ends():
    one, other = client(OTHER_KEY), server()
    with pytest.raises(AuthenticationFailed):
        one.receive(other.receive(one.hello()))
    assert one.cause == hs.WRONG_KEY
    with pytest.raises(AuthenticationFailed):
        other.receive(one.farewell)
    assert other.cause == hs.WRONG_KEY
    assert other.authenticated is None


def test_an_unknown_key_id_looks_like_a_wrong_key():
    known, unknown = client(OTHER_KEY, b""), client(OTHER_KEY, b"nobody")
    for one in (known, unknown):
        with pytest.raises(AuthenticationFailed):
            one.receive(server().receive(one.hello()))


def test_a_proof_is_refused_alike_for_a_wrong_key_and_an_unknown_id():
    """D2: a stranger does not learn what was wrong."""
    farewells = []
    for key_id in (b"", b"nobody"):
        other = server()
        hello = client(OTHER_KEY, key_id).hello()
        other.receive(hello)
        with pytest.raises(AuthenticationFailed):
            other.receive(hs._frame(hs._PROOF, bytes(32)))
        farewells.append(other.farewell)
    assert farewells[0] == farewells[1]
    with pytest.raises(AuthenticationFailed):
        client().receive(farewells[0])


def test_the_challenge_for_an_unknown_id_cannot_be_computed_from_what_is_sent():
    other = server({})
    hello = client().hello()
    challenge = other.receive(hello)
    nonce = challenge[-64:-32]
    for guess in (b"s" * 32, nonce, bytes(32)):
        if guess != b"s" * 32:  # the secret itself is never sent
            assert challenge[-32:] != hs._mac(guess, b"server", hello, challenge[:-32])
    assert b"s" * 32 not in challenge


def test_a_refusal_carries_its_reason():
    one, other = client(), server()
    other.receive(one.receive(other.receive(one.hello())))
    with pytest.raises(LinkError, match="the server is stopping") as caught:
        one.receive(other.refuse(Refusal("stopping", "the server is stopping")))
    assert type(caught.value) is LinkError
    assert one.outcome is None
    assert one.cause == hs.REFUSED


def test_a_refusal_is_shown_in_printable_characters_only():
    frame = hs._refused_frame(Refusal("x", "a\x1b[2Jb\nc" + "\N{EURO SIGN}" * 100))
    with pytest.raises(LinkError) as caught:
        client().receive(frame)
    assert str(caught.value).startswith("a?[2Jb?c")
    assert str(caught.value).isprintable()


def test_other_versions_are_refused_with_a_reason_on_both_sides():
    """B20, D6: another version of the protocol, or one that somebody has written into a hello."""
    one, other = client(), server()
    hello = bytearray(one.hello())
    hello[4] = 9
    with pytest.raises(LinkError, match="different protocols, 9 and 3"):
        other.receive(bytes(hello) + b"a field of the future")
    assert other.cause == hs.VERSION
    with pytest.raises(LinkError, match="different protocols, 9 and 3"):
        one.receive(other.farewell)
    assert one.cause == hs.VERSION


def test_a_newer_server_can_refuse_us():
    frame = bytearray(hs._refused_frame(Refusal(hs.VERSION, "protocol 9 only")))
    frame[4] = 9
    with pytest.raises(LinkError, match="protocol 9 only"):
        client().receive(bytes(frame))


def test_a_client_that_gets_its_own_frames_back_is_not_fooled():
    """D4: a reflected handshake."""
    one = client()
    with pytest.raises(ProtocolError):
        one.receive(one.hello())


def test_a_servers_answer_does_not_serve_as_a_proof():
    # The attacker has no key. It is asked for a proof by the victim's listener, and lets the victim's
    # own machines compute MACs for it in every other role.
    victim = server()
    attacker_hello = client().hello()
    victim.receive(attacker_hello)
    oracle = server(nonce=b"t" * 32)
    mac = oracle.receive(attacker_hello)[-32:]
    with pytest.raises(AuthenticationFailed):
        victim.receive(hs._frame(hs._PROOF, mac))


def test_a_relayed_handshake_ends_at_the_identities_it_names():
    # A man in the middle may pass frames on, but can present nobody under another name.
    one, other = client(), server()
    hello = bytearray(one.hello())
    at = hello.index(b"4712")
    hello[at : at + 4] = b"6666"
    with pytest.raises(AuthenticationFailed):
        one.receive(other.receive(bytes(hello)))


@pytest.mark.parametrize("replayed", [0, 1, 2, 3])
def test_a_frame_of_an_earlier_handshake_is_refused(replayed):
    """D5: a replayed handshake."""
    old = exchanged(client(), server())
    one, other = client(nonce=b"d" * 32), server(nonce=b"t" * 32)
    with pytest.raises(AuthenticationFailed):
        passed_on(one, other, lambda step, frame: old[step] if step == replayed else frame)
    assert one.outcome is None


def test_labels_and_parts_cannot_run_into_each_other():
    macs = {hs._mac(KEY, *parts) for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""))}
    assert len(macs) == 4


def test_after_its_end_a_side_takes_no_frame():
    one, other = client(), server()
    frames = exchanged(one, other)
    for side in (one, other):
        for frame in frames:
            with pytest.raises(ProtocolError):
                side.receive(frame)


def test_after_a_failure_a_side_takes_no_frame():
    one, other = client(), server()
    with pytest.raises(ProtocolError):
        other.receive(b"garbage")
    with pytest.raises(ProtocolError):
        other.receive(one.hello())


def test_nobody_is_welcomed_before_it_proved_its_key():
    other = server()
    other.receive(client().hello())
    with pytest.raises(RuntimeError):
        other.welcome("4712")
    with pytest.raises(RuntimeError):
        other.refuse(Refusal("stopping"))


@pytest.mark.parametrize(
    "frame", [b"", b"x", b"GET / HTTP/1.1\r\n\r\n", b"ipev\x03", b"ipev\x03\x63" + b"x" * 30, b"x" * 513]
)
def test_what_is_no_frame_is_a_protocol_error(frame):
    for side in (client(), server()):
        with pytest.raises(ProtocolError):
            side.receive(frame)
        assert side.cause == hs.GARBLED
        assert side.farewell is None


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_every_truncation_and_extension_is_a_protocol_error(which):
    frames = exchanged(client(), server())
    for length in range(len(frames[which]) + 2):
        if length == len(frames[which]):
            continue
        wrong = (frames[which] + b"\0")[:length]
        one, other = client(), server()
        if which >= 2:
            other.receive(one.hello())
            one.receive(frames[1])
        receiver = other if which in (0, 2) else one
        with pytest.raises(ProtocolError):
            receiver.receive(wrong)


@given(which=st.integers(0, 3), at=st.integers(0, 511), flip=st.integers(1, 255))
def test_no_mutated_frame_gets_through(which, at, flip):
    """D6: the version and all else is in what both ends sign."""

    def mutated(step, frame):
        changed = bytearray(frame)
        if step == which:
            changed[at % len(frame)] ^= flip
        return bytes(changed)

    one = client()
    with pytest.raises(LinkError):
        passed_on(one, server(), mutated)
    assert one.outcome is None


@given(frame=st.binary(max_size=600), prefixed=st.booleans(), kind=st.integers(0, 7))
def test_hostile_bytes_cause_nothing_but_errors_of_the_link(frame, prefixed, kind):
    if prefixed:
        frame = b"ipev\x03" + bytes([kind]) + frame
    for side in (client(), server()):
        with pytest.raises(LinkError):
            side.receive(frame)


NO_PIDS = ["x\n  \x1b[31m4711", "two words", " 4712", "\x00", "\x7f", "\xe9", "\u202e"]


@pytest.mark.parametrize("pid", NO_PIDS)
def test_a_client_with_a_pid_that_no_process_has_is_refused_with_the_reason(pid):
    one, other = client(me=CLIENT._replace(pid=pid)), server()
    with pytest.raises(ProtocolError, match="a pid is printable ASCII without spaces") as caught:
        other.receive(one.hello())
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert (other.cause, other.authenticated) == (hs.GARBLED, None)
    with pytest.raises(LinkError, match="a pid is printable ASCII"):
        one.receive(other.farewell)


@pytest.mark.parametrize("pid", NO_PIDS)
def test_no_client_takes_such_a_pid_from_a_server(pid):
    one, other = client(), server(me=SERVER._replace(pid=pid))
    with pytest.raises(ProtocolError, match="a pid is"):
        one.receive(other.receive(one.hello()))
    one, other = client(), server()
    other.receive(one.receive(other.receive(one.hello())))
    with pytest.raises(ProtocolError, match="a pid is"):
        one.receive(other.welcome(pid))
    assert one.outcome is None


def test_a_pid_of_other_bytes_is_refused():
    hello = bytearray(client().hello())
    hello[hello.index(b"4712")] = 0xFF
    other = server()
    with pytest.raises(ProtocolError):
        other.receive(bytes(hello))
    assert other.authenticated is None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: client(key=b""), "key"),
        (lambda: client(key=b"k" * 15), "key"),
        (lambda: client(key_id=b"i" * 17), "key id"),
        (lambda: client(nonce=b"c"), "nonce"),
        (lambda: client(me=CLIENT._replace(pid="é" * 33)), "pid"),
        (lambda: server({b"": b""}).receive(client().hello()), "key"),
    ],
)
def test_what_cannot_be_sent_is_the_callers_mistake(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_a_reader_takes_frames_byte_by_byte_and_not_one_byte_more():
    reader = FrameReader()
    stream = framed(b"one") + framed(b"two") + b"beyond"
    frames, at = [], 0
    while len(frames) < 2:
        frame = reader.feed(stream[at : at + 1])
        at += 1
        if frame is not None:
            frames.append(frame)
    assert frames == [b"one", b"two"]
    assert at == len(stream) - len(b"beyond")


@given(sizes=st.lists(st.integers(1, 512), min_size=1, max_size=5), step=st.integers(1, 600))
def test_a_reader_never_asks_for_more_than_the_frame(sizes, step):
    stream = b"".join(framed(bytes([i]) * size) for i, size in enumerate(sizes))
    reader, frames = FrameReader(), []
    while stream:
        taken = min(step, reader.missing)
        assert 1 <= taken <= len(stream)
        frame = reader.feed(stream[:taken])
        stream = stream[taken:]
        if frame is not None:
            frames.append(frame)
    assert [len(frame) for frame in frames] == sizes


@pytest.mark.parametrize("size", [0, -1, -2, 513, 2**31 - 1, -(2**31), 0x47455420])
def test_a_reader_refuses_every_other_length(size):
    with pytest.raises(ProtocolError):
        FrameReader().feed(struct.pack("!i", size))


# Sessions


@pytest.mark.parametrize(
    ("wanted", "given", "agreed"),
    [
        (None, 0, (0, False)),  # none
        (0, 0, (0, False)),  # the server has none
        (0, 7, (7, False)),  # a new one
        (7, 7, (7, True)),  # it goes on
        (7, 9, (9, False)),  # the server has forgotten it
        (2**64 - 1, 2**64 - 1, (2**64 - 1, True)),
    ],
)
def test_both_ends_know_whether_a_session_goes_on(wanted, given, agreed):
    one = ClientHandshake(KEY, b"", CLIENT, b"c" * 32, session=wanted)
    other = ServerHandshake({b"": KEY}.get, SERVER, b"s" * 32)
    proof = one.receive(other.receive(one.hello()))
    other.receive(proof)
    assert other.session_wanted == wanted
    one.receive(other.welcome("4712", given))
    for end in (one, other):
        assert end.agreement == Agreement(None, *agreed)
