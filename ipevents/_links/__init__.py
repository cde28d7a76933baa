"""One neighbour: its writer and its reader."""
