"""Whether to retrieve: the gate, the evidence it reads, and the threshold it is compared with."""
