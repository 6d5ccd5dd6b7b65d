"""Metrics, benchmarks, the PyTorch parity certificate and the demo."""
