"""An event does not arrive: the four questions to ask, in this order, and where the answers are."""

from ipevents import Child, UnknownProcess, ipem


def worker():
    @ipem.on("jobs")
    def jobs(message, number):
        print(f"{100 // number}", flush=True)

    @ipem.on("error")  # what a listener raises is told in its own process only
    def error(message, exc):
        ipem.sendToParents("failed", f"{message.failed.event}{message.failed.args}: {exc!r}")

    ipem.on("report", lambda message: message.reply("reported", ipem.stats()))


def ask(child: Child):
    """What the other end has counted."""
    with ipem.expecting("reported", timeout=60) as got:
        child.send("report")
    return got.message.args[0]


with ipem.options(useSocket=False):
    try:
        ipem.sendToChild("1", "jobs", 5)
    except UnknownProcess as exc:  # or an event "error", where somebody listens to that
        print(f"1. Was it refused here? {exc}")
    child = ipem.worker(worker)
    with ipem.expecting("failed", timeout=60) as got:
        child.send("job", 5)  # a wrong name
        child.send("jobs", 0)
    there = ask(child)
    link = ipem.stats()["links"][child.pid]
    print(f"2. Did it leave? sent {link['sent']}, queued {link['queued']}, dropped {link['dropped']}")
    print(
        f"3. Did anybody listen? received {there['links'][ipem.pid]['received']}, unheard {there['unheard']}"
    )
    print(f"4. Did the listener fail? {got.message.args[0]}")
