"""Pure statistics: intervals over replicates, and numbers read off datasets of metrics and beliefs."""
