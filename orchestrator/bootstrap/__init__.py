"""The composition root: the only place that knows which store, catalog, hosts and clock are used."""
