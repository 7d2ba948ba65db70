"""Per-channel scales and shifts moved into neighbouring constants."""
