"""Listeners on blinker signals."""
