"""Exceptions that an answering function raises, of classes that both processes can import."""

from __future__ import annotations

import os


class Own(Exception):
    """As most are."""


class Two(Exception):
    """Cannot be made again from its ``args``."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Told(Exception):
    """The same, and says how it is made again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.both = one, two

    def __reduce__(self):
        return Told, self.both


class Broken(Exception):
    """Cannot be pickled, and says so in its own way."""

    def __reduce__(self):
        raise RuntimeError("not this one")


class Breaking(Exception):
    """Can be pickled, and not be read, in the process that asks."""

    def __init__(self, pid):
        super().__init__(pid)
        if str(os.getpid()) != pid:
            raise RuntimeError("not here")


class Base(BaseException):
    """No Exception, so not to be raised in another process."""
