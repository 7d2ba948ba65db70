"""Helpers of the tests of loading."""
