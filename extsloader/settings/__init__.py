"""Reads and checks the configuration in a short-lived process, all problems at once."""
