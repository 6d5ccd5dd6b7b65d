"""From photos and a motion to a video: references, long clips, composition and interpolation."""
