"""Interrupts reports in every possible place and compares the database with the disk."""
