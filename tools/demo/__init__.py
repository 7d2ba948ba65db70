"""The demo: a text-line recogniser in float and in integer."""
