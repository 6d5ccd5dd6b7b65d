"""A small network of our own that finds hair, glasses, beard and hat; it runs in numpy and is trained with JAX."""
