"""From a request to the text to show: reuse, decide, retrieve, generate, shape."""
