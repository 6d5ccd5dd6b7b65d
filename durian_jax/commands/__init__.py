"""Verbs of the command line: one file per verb, each thin over an importable function."""
