"""Ordinary pictures and videos in, annotated clips and records out."""
