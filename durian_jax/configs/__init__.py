"""Training presets, packaged with the wheel."""
