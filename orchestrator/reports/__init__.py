"""Read models: what status, history and reports show, from the log alone. Pure but for the log."""
