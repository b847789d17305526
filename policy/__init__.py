"""Build the prompt, decide whether to retrieve, generate a text, and decide which part of it to show."""
