"""Runs: playing, recording and checkpointing the arms of an experiment; a run is a folder."""
