"""Evaluation: measure whether retrieval helps, whether the model knows when it helps, and what it costs.

The unit is a blank: a place in a file from which text was removed. The model completes each blank twice, without and
with cross-file context, and the results are one row of a CSV file. A policy decides at which blanks to retrieve, so it
only selects one of the two results of each row. Any number of policies and thresholds can therefore be compared without
running the model again. One of them is the oracle, which always selects the better result and is the upper limit of all
policies. Only latency (`latency.py`) and the effort of a simulated typist (`typist.py`) are measured separately.
"""
