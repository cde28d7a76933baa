"""What of exits.py can be seen without a way to end; the ends are in system/test_exits.py."""

from __future__ import annotations

import pytest
from scripts import running

BODIES = {
    "nothing behind it": ("ipem.start()\nipem.stop()", True),
    "a function": ("def main():\n    ipem.start()\n    ipem.stop()\nmain()", True),
    "a loop": ("for _ in range(2):\n    ipem.start()\n    ipem.stop()", True),
    "a return of None at the end of an if": (
        "if True:\n    ipem.start()\n    ipem.stop()\nelse:\n    pass",
        True,
    ),
    "a handled exception": (
        "ipem.start(); ipem.stop()\ntry:\n    1/0\nexcept ZeroDivisionError:\n    pass",
        True,
    ),
    "sys.exit": ("ipem.start(); ipem.stop()\nsys.exit(0)", False),
    "sys.exit in a function": ("ipem.start(); ipem.stop()\ndef f(): sys.exit(0)\nf()", False),
    "sys.exit in a with": ("ipem.start(); ipem.stop()\nwith open(os.devnull):\n    sys.exit(0)", False),
    "sys.exit in a finally": ("ipem.start(); ipem.stop()\ntry:\n    pass\nfinally:\n    sys.exit(0)", False),
    "sys.exit in an except": (
        "ipem.start(); ipem.stop()\ntry:\n    1/0\nexcept ZeroDivisionError:\n    sys.exit(0)",
        False,
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_whether_the_body_returned_is_read_from_its_frame(body):
    text, returned = BODIES[body]
    look = """
    import atexit
    from ipevents._platform import exits
    atexit.register(lambda: say(exits.body_returned()))
    """
    with running(look, text + "\n") as script:
        ended = script.ended()
    assert (ended.status, ended.out, ended.err) == (0, f"{returned}\n", "")
