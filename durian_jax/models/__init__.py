"""Flax networks and nothing else: no I/O, no mesh, no optimiser. (`config` is for every backend: it imports no jax.)"""
