"""From a request to the text that is shown: reuse, decide, retrieve, generate, shape."""
