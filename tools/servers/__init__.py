"""Builds and starts the servers that the tests, the demo and the benchmarks use."""
