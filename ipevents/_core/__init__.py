"""What can be decided from values: no thread, lock, clock, socket, process, file, environment or log."""
