"""Quantizers whose steps are not equal."""
