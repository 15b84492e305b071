"""Programs around the trained networks."""
