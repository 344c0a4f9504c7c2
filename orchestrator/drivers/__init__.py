"""What probes, actions and the lab share about one real part each; must never import planning or engine."""
