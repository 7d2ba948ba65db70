"""What may never happen, looked for with random models, damaged models, broken data and disturbed files."""
