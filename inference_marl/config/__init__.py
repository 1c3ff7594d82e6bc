"""Experiment files: reading, checking and writing them, and the Python equivalents of their keys."""
