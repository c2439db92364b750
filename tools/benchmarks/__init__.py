"""Measures what the programs and the queries cost, as ratios in one run."""
