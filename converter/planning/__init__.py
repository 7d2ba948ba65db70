"""Plan: from a method to a plan, from a file to a plan, and whether it fits the model."""
