"""A pool hashes 200 files while its workers are killed at random: each file is hashed all the same."""

import hashlib
import os
import random
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from ipevents import ipem

over, killed = threading.Event(), []


def hash_file(path):
    content = path.read_bytes() * 100  # so that it takes 10 ms or so
    return path.name, hashlib.blake2b(content).hexdigest()


def kill_workers(pool):
    while not over.wait(random.uniform(0.1, 0.5)):
        with suppress(IndexError, ProcessLookupError):  # none is there now, or it has just ended
            killed.append(random.choice(pool.pids))
            os.kill(killed[-1], signal.SIGKILL)


with tempfile.TemporaryDirectory() as folder, ipem.pool(4) as pool:
    paths = [Path(folder, f"file {number}") for number in range(200)]
    for path in paths:
        path.write_bytes(os.urandom(1 << 16))
    threading.Thread(target=kill_workers, args=[pool], daemon=True).start()
    digests = {}
    for name, digest in pool.map(hash_file, paths, ordered=False, retry=5):
        digests[name] = digest
        print(f"\r[{'#' * (len(digests) // 5):40}] {len(digests)} of 200", end="", flush=True)
    over.set()
    assert digests == dict(map(hash_file, paths))
print(f"\nall are right, and {len(killed)} workers were killed")
