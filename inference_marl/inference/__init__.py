"""Inference: conditionals, plates, ELBOs, optimisers, networks, replay and exact solutions."""
