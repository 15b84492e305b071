"""Clip networks as streaming networks with the same weights: plan (NumPy only), step, forms."""
