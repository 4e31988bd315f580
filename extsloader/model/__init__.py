"""Frozen data that every other part speaks: it imports nothing of ours and does no I/O."""
