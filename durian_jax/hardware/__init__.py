"""Chip specifications, and FLOPs counted from a program."""
