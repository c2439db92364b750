"""Measures what fleets of 1,000 to 100,000 certificates cost the servers."""
