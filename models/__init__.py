"""Reference networks: definitions, training, export and evaluation of the five hybrid families."""
