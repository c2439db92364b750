"""Simulates a year of a fleet and counts false alerts and missed incidents."""
