"""Benchmarks: `python -m bench throughput`, `python -m bench memory` and others. They are not part of the tests."""
