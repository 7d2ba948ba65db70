"""Cheaper functions in the place of a sigmoid that gates what it reads."""
