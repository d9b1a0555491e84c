"""Honest numbers: metrics with intervals, paired tests, reports."""
