"""The page in one process, and between two. With children of the library: processes/test_children.py."""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import pickle
import resource
import sys
import threading
from multiprocessing import context, reduction

import pytest

from ipevents._core.page_layout import LANES
from ipevents._platform import shared_page as module
from ipevents._platform.shared_page import SIZE, SharedPage

KEPT = int(sys.version_info < (3, 13))  # descriptors that a mapping keeps


class Starting:
    """A start of a process, which passes a copy of each descriptor on to this very process."""

    def duplicate_for_child(self, descriptor):
        return os.dup(descriptor)

    class DupFd:
        def __init__(self, descriptor):
            self.descriptor = descriptor

        def detach(self):
            return self.descriptor


def pickled(page):
    before = context.get_spawning_popen()
    context.set_spawning_popen(Starting())
    try:
        return bytes(reduction.ForkingPickler.dumps(page))
    finally:
        context.set_spawning_popen(before)


def open_descriptors():
    return sorted(os.listdir("/dev/fd"))


@pytest.fixture
def page():
    page = SharedPage.create()
    yield page
    page.close()


def no_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)


def refused_memfd(monkeypatch):
    def refuse(name, flags):
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)


def as_it_is(monkeypatch):
    pass


SYSTEMS = pytest.mark.parametrize("system", [as_it_is, no_memfd, refused_memfd])


@SYSTEMS
def test_what_the_child_writes_the_parent_reads(monkeypatch, system):
    system(monkeypatch)
    parents = SharedPage.create()
    childs = pickle.loads(pickled(parents))
    parents.close_descriptor()
    assert parents.begun_last("x") == (0, 0)
    childs.begin(0, 4711)
    assert parents.begun_last("x") == (0, 4711)
    lane = childs.lane_of("x")
    childs.begin(lane, (1 << 64) - 1)
    assert parents.begun_last("x") == (lane, (1 << 64) - 1)
    assert parents.begun_last("y") == (0, 4711)


@SYSTEMS
def test_no_descriptor_is_left_after_the_start_but_what_a_mapping_keeps(monkeypatch, system):
    system(monkeypatch)
    before = open_descriptors()
    parents = SharedPage.create()
    opened = len(open_descriptors()) - len(before)
    childs = pickle.loads(pickled(parents))
    parents.close_descriptor()
    left = len(open_descriptors()) - len(before)
    assert (opened, left) == (1 + KEPT, 2 * KEPT)
    parents.close()
    childs.close()
    gc.collect()
    assert open_descriptors() == before


def test_the_descriptor_is_not_inherited_by_other_processes(page):
    assert not os.get_inheritable(page._descriptors[0])


def test_nobody_can_make_the_file_shorter_which_would_kill_who_reads_it(page):
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no seals")
    with pytest.raises(PermissionError):
        os.ftruncate(page._descriptors[0], 0)


def test_it_is_pickled_only_for_a_child_that_is_started(page):
    """multiprocessing would offer the descriptor in a thread of its own."""
    with pytest.raises(RuntimeError, match="SharedPage"):
        pickle.dumps(page)


def test_after_close_it_reads_as_zeros_and_writes_are_lost(page):
    page.begin(0, 5)
    assert page.begun_last("x") == (0, 5)
    page.close()
    page.close()
    assert page.begun_last("x") == (0, 0)
    page.begin(0, 6)


def mappings():
    with open("/proc/self/maps") as file:
        return sum(module._NAME in line for line in file)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="this system does not list mappings")
def test_the_memory_is_given_back_when_the_last_reader_is_done(page):
    gc.collect()
    before = mappings()
    read = page._slots
    page.close()
    assert mappings() == before
    assert read[0] == 0
    del read
    assert mappings() == before - 1


def test_it_can_be_closed_while_it_is_read():
    page, begun, over = SharedPage.create(), threading.Event(), threading.Event()
    page.begin(0, 5)
    seen = set()

    def read():
        while not over.is_set():
            seen.add(page.begun_last("x"))
            begun.set()

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    page.close()
    last = page.begun_last("x")
    over.set()
    thread.join()
    assert last == (0, 0)
    assert seen <= {(0, 5), (0, 0)}


def test_a_page_that_nobody_has_any_more_gives_its_descriptor_back():
    before = open_descriptors()
    page = SharedPage.create()
    assert open_descriptors() != before
    del page
    gc.collect()
    assert open_descriptors() == before


def test_without_a_descriptor_there_is_no_page():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    SharedPage.create().close()  # what is imported late is imported
    before = open_descriptors()
    filled = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 50, hard))
        with contextlib.suppress(OSError):
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError) as caught:
            SharedPage.create()
    finally:
        for descriptor in filled:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before


def test_a_disk_that_is_full_is_no_place_for_a_page(monkeypatch):
    """The file would have its size, and whoever writes to the page would be killed by SIGBUS."""
    before = open_descriptors()
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(OSError) as caught:
        SharedPage.create()
    assert caught.value.errno == errno.ENOSPC
    assert open_descriptors() == before


def test_a_mapping_that_the_system_refuses_is_an_oserror_with_its_number(tmp_path):
    read_only = tmp_path / "file"
    read_only.write_bytes(bytes(SIZE))
    descriptor = os.open(read_only, os.O_RDONLY)  # cannot be mapped to be written
    try:
        with pytest.raises(OSError) as caught:
            module._mapped(descriptor)
    finally:
        os.close(descriptor)
    assert caught.value.errno == errno.EACCES


def test_a_child_without_memory_for_it_has_a_page_of_its_own_and_the_parent_reads_zeros(monkeypatch, page):
    passed = pickled(page)
    before = open_descriptors()

    def refuse(descriptor):
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(module, "_mapped", refuse)
    childs = pickle.loads(passed)
    childs.begin(0, 5)
    assert (childs.begun_last("x"), page.begun_last("x")) == ((0, 5), (0, 0))
    assert len(open_descriptors()) == len(before) - 1


def test_any_other_fault_of_the_mapping_is_none_of_a_missing_page(monkeypatch, page):
    passed = pickled(page)
    before = open_descriptors()

    def fail(descriptor):
        raise ValueError("a mistake")

    monkeypatch.setattr(module, "_mapped", fail)
    with pytest.raises(ValueError, match="a mistake"):
        pickle.loads(passed)
    assert len(open_descriptors()) == len(before) - 1


def test_of_too_many_events_the_parent_says_that_it_does_not_know(page):
    childs = pickle.loads(pickled(page))
    for number in range(LANES):
        childs.begin(childs.lane_of(str(number)), number + 1)
    assert page.begun_last("one more") == (0, 0)
    assert childs.lane_of("one more") is None
    assert page.begun_last("one more") is None
    assert [page.begun_last(str(number))[1] for number in range(LANES)] == [*range(1, LANES + 1)]


def test_the_page_is_a_page():
    assert SIZE == 4096
    assert mmap.PAGESIZE % SIZE == 0
