"""Two data centres on one machine with real parts, for demos and tests; must never touch a real estate."""
