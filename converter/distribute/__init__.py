"""Independent pieces of work, on processes of this machine or on a Ray cluster."""
