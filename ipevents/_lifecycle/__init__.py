"""Start, stop, and the main function of a child."""
