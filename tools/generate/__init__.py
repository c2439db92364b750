"""Generates Kapacitor templates, dashboards and rules from the queries of flux/."""
