"""Figures: `python -m bench throughput` and `python -m bench memory`. Never part of the tests."""
