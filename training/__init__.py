"""What a training run is made of, beside the network: its steps, its counts, its folder and the
processes that share it."""
