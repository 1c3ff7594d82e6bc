"""Statistics of recorded runs: intervals over replicates, and summaries of recorded metrics and beliefs."""
