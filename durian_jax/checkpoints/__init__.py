"""Exported weights: reading, writing, and the checkpoints that ship with the package."""

from pathlib import Path

# Folder of the checkpoints that ship with the package.
SHIPPED = Path(__file__).parent
