"""Integer forms: one file each, with what it asks of an operator, how it is written, simulated and checked."""
