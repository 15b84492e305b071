"""NTU RGB+D `.skeleton` recordings, and the synthetic ones in the same format."""
