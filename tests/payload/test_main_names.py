"""What is noted of a call; that it arrives is in test_by_value.py."""

from __future__ import annotations

import linecache

from ipevents._payload.main_names import Names


def noted(names: Names, namespace: dict, *values: object) -> dict:
    assert names.claim(namespace)
    for value in values:
        names.note(value)
    return names.take()[0]


def of_main(name: str) -> type:
    return type(name, (), {"__module__": "__main__"})


def test_the_first_globals_that_are_called_main_are_the_scripts():
    names, script, other = Names(), {"__name__": "__main__"}, {"__name__": "__main__"}
    assert not names.claim({"__name__": "module"})
    assert not names.used
    assert names.claim(script)
    assert not names.claim(other)
    assert names.claim(script)
    assert names.used


def test_only_what_the_script_calls_so_is_named():
    mine, hidden, foreign = of_main("Mine"), of_main("Hidden"), type("Foreign", (), {"__module__": "module"})
    space = {"__name__": "__main__", "Mine": mine, "Hidden": of_main("Hidden"), "Foreign": foreign}
    assert noted(Names(), space, mine, hidden, foreign) == {"Mine": mine}


def test_what_was_brought_is_brought_once_and_named_from_then_on():
    names, mine = Names(), of_main("Mine")
    space = {"__name__": "__main__", "Mine": mine}
    assert names.sent_as(mine) is None
    assert noted(names, space, mine) == {"Mine": mine}
    assert names.sent_as(mine) is None  # not before its pickle is complete
    names.seal()
    assert names.sent_as(mine) == "Mine"
    assert noted(names, space, mine) == {}


def test_text_in_annotations_that_is_none_is_passed_over():
    mine = of_main("Mine")
    mine.__annotations__ = {"a": "not one!", "b": "\0", "c": "list[Other] | None", "d": 5}
    other = of_main("Other")
    space = {"__name__": "__main__", "Mine": mine, "Other": other, "not": 1}
    assert noted(Names(), space, mine) == {"Mine": mine, "Other": other}


def test_lines_are_sent_once_and_only_where_no_file_has_them(monkeypatch):
    names = Names()
    entry = (4, None, ["text"], "<cell>")
    monkeypatch.setattr(
        linecache,
        "cache",
        {
            "<cell>": entry,
            "file.py": (4, 1.0, ["text"], "file.py"),
            "lazy": (str,),
            "<big>": (1 << 30, None, [], ""),
        },
    )
    for filename in ("<cell>", "file.py", "lazy", "<big>", "unknown"):
        names.note_file(filename)
    assert names.take()[1] == {"<cell>": entry}
    assert names.take()[1] == {}
