"""SVDP's networks in PyTorch."""
