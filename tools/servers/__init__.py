"""Builds and starts the servers that the tests and the demo use."""
