"""Latency on x86, of this converter's files and other tools'."""
