"""What a run found: numbers, ArviZ, figures and reports, read from its folder."""
