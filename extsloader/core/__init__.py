"""Decisions: events in, effects out, with no clock, no dice and no I/O of their own."""
