"""Experiment files and the objects they describe: what a file may say, and its Python twins."""
