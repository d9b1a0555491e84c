"""`groundtune doctor`: what this machine can do, and whether the configured pipeline can run on it."""
