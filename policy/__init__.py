"""What to put before the model, whether to retrieve, and what to show of the answer."""
