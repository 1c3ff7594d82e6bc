"""Analysis of runs from their folders: estimates, exports to ArviZ, figures and reports."""
