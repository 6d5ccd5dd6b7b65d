"""Suites of hard transfers with exact answers: what goes wrong where the benchmark's average hides it."""
