"""The decision whether to retrieve: the gate, the evidence that it reads, and the threshold for its probability."""
