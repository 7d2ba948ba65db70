"""What several methods judge candidates by."""
