"""This interpreter: threads, waits, signals of the system, exits, logs."""
