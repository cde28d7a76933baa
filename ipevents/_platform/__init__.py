"""What the package needs of this interpreter: threads, waits, signals of the system, exits, logs."""
