"""Children: start, watch, restart, stop."""
