"""Decide what the model reads and whether to retrieve, generate, and decide what part of the text to show."""
