"""Each stage of a conversion as one call, from a loaded model to a report."""
