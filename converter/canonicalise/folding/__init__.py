"""Factors, offsets and whole layers go into the constants of other layers."""
