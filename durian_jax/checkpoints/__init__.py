"""Exported weights: reading, writing, and the checkpoints that ship with the package."""
