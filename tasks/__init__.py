"""What the user writes, how it is loaded, and the bridge between a PyTorch model and the flat vector."""
