"""Functions that were written with primitive operators become one operator."""
