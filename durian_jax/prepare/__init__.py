"""Turn ordinary pictures and videos into annotated clips and records."""
