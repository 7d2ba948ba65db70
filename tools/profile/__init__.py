"""Costs of a target, measured and fitted."""
