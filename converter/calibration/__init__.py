"""Calibrate: samples, and what the float model computes on them."""
