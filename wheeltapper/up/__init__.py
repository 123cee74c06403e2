"""``wheeltapper up``: every room on one machine, each its own process, watched from one place."""
