"""The plan: plain data between methods, partition and emission."""
