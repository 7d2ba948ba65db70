"""Verify: what was emitted, against the plan and against float."""
