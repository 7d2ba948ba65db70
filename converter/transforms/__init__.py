"""Rewrites that a method chooses and a plan records."""
