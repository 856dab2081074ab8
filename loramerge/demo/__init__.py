"""The whole story in one command, on this machine alone."""
