"""Partition: which operators can run in integer, what that costs, and the minimum cut between integer and float."""
