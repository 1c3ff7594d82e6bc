"""What a run has to tell: questions, their answers as tables, as plain text or as one HTML page."""
