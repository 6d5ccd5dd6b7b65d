"""Stable Video-Driven Portraits: a portrait animated by the eyes, nose and mouth of a driving video."""
