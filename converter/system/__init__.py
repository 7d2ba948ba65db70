"""What the operating system is asked for: memory, and small files of text."""
