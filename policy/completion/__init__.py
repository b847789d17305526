"""Answer a request: reuse an earlier completion, or decide, retrieve, generate and shape the text to show."""
