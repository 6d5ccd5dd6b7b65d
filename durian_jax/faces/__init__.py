"""Faces: keypoint topology, masks, warps, drawing, quality measures and motion."""
