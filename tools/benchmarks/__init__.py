"""Comparisons of methods and tools on trained networks."""
