"""Stores: where the log is kept. One contract (``ports.Store``), one test suite, each store one file."""
