"""Durian (arXiv 2509.04434): its sizes and networks."""
