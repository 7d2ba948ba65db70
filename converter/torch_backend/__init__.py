"""Ground: models as torch functions."""
