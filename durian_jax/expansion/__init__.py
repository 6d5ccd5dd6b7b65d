"""`durian expand`: generated regions for mask expansion."""
