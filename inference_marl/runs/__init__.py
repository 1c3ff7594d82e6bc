"""Runs: arms that are played, recorded and checkpointed; a run is a folder."""
