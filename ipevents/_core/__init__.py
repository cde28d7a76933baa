"""Decides and touches nothing: no thread, lock, clock, socket, process, file, environment or log."""
