"""The documentation: its commands and links, its pictures, and the site that is built of it."""
