"""The report of runs as one HTML page, with PNG and CSV versions of its plots."""
