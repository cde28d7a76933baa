"""Trees of real processes that a test directs: each runs programs/directed_node.py.

Commands and what is heard travel over a side channel, so they leave no trace in the tree itself.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "programs" / "directed_node.py"
CEILING_SECONDS = 30.0  # of every wait; reached only in a deadlock


class Raised(Exception):
    """A command raised in its process: ``kind`` and ``text``."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Peer:
    """One process, in one of its lives."""

    def __init__(self, tree: Tree, connection: Any, role: str, pid: int, name: str) -> None:
        self.tree = tree
        self.connection = connection
        self.role = role
        self.pid = pid
        self.name = name  # the role, or role@2 in its second life
        self.heard: list[dict[str, Any]] = []  # since the last look
        self.ever: list[dict[str, Any]] = []
        self.answers: dict[int, tuple[Any, ...]] = {}
        self.marks: set[tuple[int, str]] = set()
        self.gone = False
        self.numbers = itertools.count()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        tree = self.tree
        while True:
            try:
                kind, *rest = self.connection.recv()
            except (EOFError, OSError):
                with tree.changed:
                    self.gone = True
                    tree.changed.notify_all()
                return
            with tree.changed:
                if kind == "heard":
                    pid, record = rest
                    tree.names[pid] = self.name
                    self.heard.append(record)
                    self.ever.append(record)
                elif kind == "marked":
                    self.marks.add(tuple(rest))
                else:
                    self.answers[rest[0]] = (kind, *rest[1:])
                tree.changed.notify_all()

    def begin(self, command: str, *args: Any, **kwargs: Any) -> int:
        """Give a command; ``end`` waits for its answer."""
        number = next(self.numbers)
        self.connection.send((number, command, args, kwargs))
        return number

    def end(self, number: int) -> Any:
        self.tree.wait(lambda: number in self.answers or self.gone, f"{self.name} to answer")
        answer = self.answers.pop(number, ("gone",))
        if answer[0] == "raised":
            raise Raised(*answer[1:])
        return answer[1] if answer[0] == "did" else None

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Give a command and wait for its answer; None if the process ended."""
        return self.end(self.begin(command, *args, **kwargs))

    def call(self, function: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of the process's emitter."""
        self.do("call", function, *args, **kwargs)

    def has(self, event: str, *args: Any) -> bool:
        """Whether it has heard an event (with these arguments) since the last look."""
        return any(
            item["event"] == event and (not args or tuple(item["args"]) == args) for item in self.heard
        )


class Tree:
    """All processes of a test."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "channel")
        self.changed = threading.Condition()
        self.plans: dict[str, dict[str, Any]] = {}
        self.peers: dict[str, Peer] = {}  # role to its latest life
        self.all: list[Peer] = []
        self.names: dict[str, str] = {}  # every pid ever seen, to role (and life)
        self._fences = itertools.count(1)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listener = Listener(self.address, "AF_UNIX", backlog=64)
        self._closing = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            if self._closing:
                connection.close()
                return
            role, pid = connection.recv()
            with self.changed:
                life = 1 + sum(peer.role == role for peer in self.all)
                peer = Peer(self, connection, role, pid, role if life == 1 else f"{role}@{life}")
                self.names[str(pid)] = peer.name
                self.all.append(peer)
                peer.thread.start()
                peer.begin("prepare", self.plans.get(role, {}))
                self.peers[role] = peer
                self.changed.notify_all()

    def __getitem__(self, role: str) -> Peer:
        return self.peers[role]

    def wait(self, predicate: Any, what: str) -> None:
        """Wait until something holds that hearing or answering can bring about."""
        with self.changed:
            if not self.changed.wait_for(predicate, CEILING_SECONDS):
                heard = {peer.name: peer.heard for peer in self.all}
                raise AssertionError(f"waited in vain for {what}; heard: {heard}")

    def wait_heard(self, role: str, event: str, *args: Any) -> None:
        """Wait until a role, in whatever life, has heard an event since the last look."""
        self.wait(
            lambda: role in self.peers and self.peers[role].has(event, *args), f"{event}{args} at {role}"
        )

    def lives(self, role: str) -> int:
        return sum(peer.role == role for peer in self.all)

    # Processes

    def top(self, role: str, **plan: Any) -> Peer:
        """Start a process by hand and wait until it is prepared."""
        life = self.lives(role) + 1
        self.plans[role] = plan
        command = [sys.executable, str(PROGRAM), self.address, role]
        self._processes.append(subprocess.Popen(command))
        return self.prepared(role, life)

    def child(self, via: str, parent: str, role: str, plan: dict[str, Any], **kwargs: Any) -> Peer:
        """Have a parent start a child, ``via`` worker or fork, and wait until it is prepared."""
        life = self.lives(role) + 1
        self.plans[role] = plan
        self[parent].do(via, role, **kwargs)
        return self.prepared(role, life)

    def prepared(self, role: str, life: int) -> Peer:
        """Wait for a role's process and its first answer."""
        self.wait(lambda: self.lives(role) >= life and 0 in self.peers[role].answers, f"{role}, life {life}")
        self.peers[role].end(0)
        return self.peers[role]

    def kill(self, role: str) -> None:
        """KILL a process; it is gone when this returns, as far as its side channel can tell."""
        peer = self[role]
        os.kill(peer.pid, signal.SIGKILL)
        self.wait(lambda: peer.gone, f"the end of {role}")

    # Looking

    def fence(self, *roles: str) -> None:
        """Wait until everything sent so far has arrived: every process broadcasts a mark, twice.

        Links are in order. Of the given roles, which must be one tree; without any, of all that live.
        """
        peers = [self.peers[role] for role in roles] or [
            peer for peer in self.peers.values() if not peer.gone
        ]
        for _ in range(2):
            number = next(self._fences)
            self._pass(peers, number, [(peer, "broadcast", ("mark", number)) for peer in peers])
        self._settle(peers)

    def fence_pair(self, parent: str, child: str) -> None:
        """The same for two processes whose server is away, where a broadcast would be an error."""
        above, below = self[parent], self[child]
        up, down = self.pid(parent), self.pid(child)
        for _ in range(2):
            number = next(self._fences)
            marks = [(above, "sendToChild", (down, "mark", number)), (below, "sendTo", (up, "mark", number))]
            self._pass([above, below], number, marks)
        self._settle([above, below])

    def _pass(self, peers: list[Peer], number: int, marks: list[tuple[Peer, str, tuple[Any, ...]]]) -> None:
        names = {peer.name for peer in peers}
        for peer, answer in [(peer, peer.begin("call", function, *args)) for peer, function, args in marks]:
            peer.end(answer)

        def passed() -> bool:
            return all(
                {self.names.get(pid) for mark, pid in peer.marks if mark == number} >= names - {peer.name}
                for peer in peers
            )

        self.wait(passed, f"the marks {number} at {names}")

    def _settle(self, peers: list[Peer]) -> None:
        for peer in peers:
            if "error" not in self.plans[peer.role].get("deaf", ()):
                peer.do("settle")

    def take(self) -> list[dict[str, Any]]:
        """All that was heard since the last look, with roles in the place of pids."""
        with self.changed:
            found = []
            for peer in self.all:
                found += [self._named(peer, record) for record in peer.heard]
                peer.heard.clear()
            return found

    def _named(self, peer: Peer, record: dict[str, Any]) -> dict[str, Any]:
        named = {"who": peer.name, **record}
        for key in ("from", "to", "parentPid"):
            named[key] = self.name(record[key])
        for key in ("pids", "route"):
            named[key] = None if record[key] is None else [self.name(pid) for pid in record[key]]
        named["args"] = [self.name(arg) if isinstance(arg, str) else arg for arg in record["args"]]
        return named

    def name(self, pid: str | None) -> str | None:
        return None if pid is None else self.names.get(pid, pid)

    def names_to_pids(self) -> dict[str, str]:
        return {name: pid for pid, name in self.names.items()}

    def pid(self, role: str) -> str:
        """The pid that a role has in the tree."""
        return str(self[role].do("state")["pid"])

    # The end

    def close(self) -> None:
        """Tell the processes that were started by hand to stop, and wait for all."""
        by_hand = {process.pid for process in self._processes}
        for peer in self.all:
            if not peer.gone and peer.pid in by_hand:  # the others end with their parents
                try:
                    peer.begin("quit")
                except OSError:
                    continue
        stuck = []
        for process in self._processes:
            try:
                process.wait(CEILING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stuck.append(process.pid)
        self._closing = True
        Client(self.address, "AF_UNIX").close()
        self._thread.join()
        self._listener.close()
        for peer in self.all:
            peer.thread.join(CEILING_SECONDS)
            peer.connection.close()
        assert not stuck, f"processes {stuck} did not end when they were told to"
