"""Random graphs, and what must hold for the conversion of any of them."""
