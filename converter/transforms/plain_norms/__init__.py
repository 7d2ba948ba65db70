"""Normalizations over the last axis without factors of their own, by the runtime's cheaper kernel."""
