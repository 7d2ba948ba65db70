"""Really trained networks: what they read, and how their answers are judged."""
