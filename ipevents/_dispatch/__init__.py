"""The listeners of an emitter: registered on blinker signals, called one at a time."""
