"""The command line: flags, progress, tables and exit codes."""
