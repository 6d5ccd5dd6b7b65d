"""Training: train state, step, checkpoints, loop."""
