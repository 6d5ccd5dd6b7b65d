"""What a face is: keypoint topology, masks, warps, drawing and motion."""
