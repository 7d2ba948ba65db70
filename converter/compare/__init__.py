"""Compare: two plans, two int8 models, or a model and its float original, on the same samples."""
