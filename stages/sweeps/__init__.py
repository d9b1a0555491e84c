"""Sweeps: a stage with many settings, each trained and evaluated on validation data, compared, and one adopted."""
