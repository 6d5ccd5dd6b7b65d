"""Training stages, one file per model family."""
