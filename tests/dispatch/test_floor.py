from __future__ import annotations

import threading

from ipevents._dispatch.floor import Floor

CEILING = 30.0  # reached only in a deadlock


def held_by_another_thread(floor):
    """What a forked process finds if a thread that was not the forking one ran a listener."""
    thread = threading.Thread(target=floor.lock.acquire)
    thread.start()
    thread.join(CEILING)
    floor.owner, floor.depth = thread.ident, 1
    floor.owed.append(None)


def test_a_thread_that_does_not_exist_any_more_holds_nothing():
    floor = Floor()
    held_by_another_thread(floor)
    floor.forget_owner()
    assert (floor.owner, floor.depth, floor.gatherer, floor.owed) == (0, 0, None, [])
    assert floor.lock.acquire(False)


def test_the_forking_thread_goes_on_to_hold_what_it_holds():
    floor = Floor()
    floor.take()
    floor.owner, floor.depth = threading.get_ident(), 1
    floor.forget_owner()
    assert (floor.owner, floor.depth) == (threading.get_ident(), 1)
    floor.lock.release()
