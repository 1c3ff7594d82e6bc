"""What the probabilistic side stands on: conditionals, plates, ELBOs, optimisers, networks, replay, exact solutions."""
