"""What this machine and its runtime can do in integer, and whether a file fits them."""
