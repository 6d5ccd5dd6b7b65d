"""One training sample from clips, one file per model family."""
