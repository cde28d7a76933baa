"""The state lock; events out, events in, presence, errors."""
