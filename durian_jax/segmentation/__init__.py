"""A small segmentation network for heads. NumPy runs it; JAX trains it."""
