"""The library in programs whose own code raises, freezes the clock, or takes the memory."""

from __future__ import annotations

from scripts import running


def lines_of(text: str) -> list[str]:
    with running(text) as script:
        ended = script.ended()
    assert ended.status == 0, ended
    return ended.lines


def test_a_logging_filter_that_raises_ends_no_thread():
    text = """
    import logging

    class Hurdle(logging.Filter):
        def filter(self, record):
            raise AttributeError("no request_id")

    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(Hurdle())
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.raiseExceptions = False

    def work():
        ipem.on("leave", lambda message: os._exit(1))
        ipem.start()

    told("offline")
    ipem.start()
    for number in range(2):
        child = ipem.worker(work, restart=False)
        with ipem.expecting("offline"):
            child.send("leave")
        child.join()
    ipem.stop()
    say("stopped")
    """
    assert lines_of(text) == ["offline", "offline", "stopped"]


def test_a_clock_that_is_frozen_as_tests_do_it_stops_no_wait_and_no_restart():
    """B18: the clock of the wall stands still."""
    text = """
    real, frozen = time.monotonic, lambda: 1.7e9
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if value is real:
                setattr(module, name, frozen)

    def work():
        ipem.on("never", print)
        ipem.start()

    with ipem:
        child = ipem.worker(work)
        with ipem.expecting("online"):
            pass
        say("join", child.join(0.05))
        with ipem.expecting("online"):
            os.kill(int(child.pid), signal.SIGKILL)
        say("restarts", child.restarts)
    say("stopped")
    """
    assert lines_of(text) == ["join False", "restarts 1", "stopped"]


def test_an_event_for_which_there_is_no_memory_is_lost_alone():
    text = """
    def work():
        import resource

        def take(message, data=None):
            message.reply("taken", data is not None)

        ipem.on("large", take)
        ipem.on("small", take)
        ipem.on("error", lambda message, exc: ipem.sendToParents("failed", type(exc).__name__))
        ipem.start()
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * os.sysconf("SC_PAGESIZE") + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        ipem.sendToParents("limited")

    with ipem:
        with ipem.expecting("limited"):
            child = ipem.worker(work)
        with ipem.expecting("failed") as failed:
            child.send("large", bytes(256 << 20))
        with ipem.expecting("taken") as taken:
            child.send("small")
        say(failed.message.args[0], taken.message.args[0], child.restarts)
    """
    assert lines_of(text) == ["UnreadablePayload False 0"]
