"""What a child is doing when it is told to end, or a listener of it ends it, makes no difference."""

from __future__ import annotations

import pytest
from matrix import slow
from scripts import running

# What the main thread of a child does meanwhile.
DOING = {
    "run": "ipem.run()",
    "run with a timeout": "while not ipem.run(0.001): pass",
    "sleep": "time.sleep(1000)",
    # Not `while True`: 3.11 and 3.12 skip the finally when a signal handler raises at its jump back.
    "loop": "for _ in iter(int, 1): pass",
    "wait for an event": "ipem.waitFor('never')",
    "wait for a lock": "threading.Event().wait()",
    "nothing": "pass",
}
QUICK = ["run", "sleep", "loop", "nothing"]

CHILD = """
def target():
    @ipem.on("leave")
    def leave(message):
        sys.exit(3)

    ipem.start()
    ipem.sendToParents("doing")
    try:
        {doing}
    finally:
        ipem.sendToParents("unwound")

told("unwound")
with ipem:
    with ipem.expecting("doing"):
        child = ipem.worker(target, restart=False)
    with ipem.expecting("offline") as got:
        {end}
    say("exit code", got.message.exitcode)
"""


@pytest.mark.parametrize(
    ("end", "code", "doing"),
    [
        *(("child.send('leave')", 3, doing) for doing in QUICK),
        *(slow("child.send('leave')", 3, doing) for doing in DOING if doing not in QUICK),
        # Slow, as test_exits ends children by a stop out of all that they may be doing.
        ("child.stop()", 0, "run"),
        *(slow("child.stop()", 0, doing) for doing in DOING if doing != "run"),
    ],
)
def test_a_child_ends_from_whatever_it_does(doing, end, code):
    with running(CHILD.format(doing=DOING[doing], end=end)) as script:
        ended = script.ended()

    assert (ended.status, ended.err) == (0, "")
    assert ended.lines == ["unwound", f"exit code {code}"]
