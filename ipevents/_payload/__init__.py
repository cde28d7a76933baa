"""Turns the arguments of an event or of a worker into bytes, and back."""
