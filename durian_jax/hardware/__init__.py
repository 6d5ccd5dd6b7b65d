"""Chips and their figures, and FLOPs counted from a program."""
