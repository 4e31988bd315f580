"""Measurements with the real agent: `make bench`. They are no tests: nothing fails here."""
