"""Reports of runs: tables that answer questions, as plain text or as one HTML page."""
