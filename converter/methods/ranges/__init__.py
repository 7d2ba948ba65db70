"""Methods that look at the range or the distribution of each tensor alone."""
