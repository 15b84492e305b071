"""Synthetic people in motion, as NTU-style recordings and as arrays."""
