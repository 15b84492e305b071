"""Synthetic people performing actions, as NTU-style recordings and as arrays."""
