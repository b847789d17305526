"""The decision whether to retrieve, and the estimate of whether the user keeps a completion."""
