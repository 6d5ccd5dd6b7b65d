"""Name maps and export layouts, one file per model family."""
