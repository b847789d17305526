"""Evaluation: measure whether retrieval helps, how good the decisions are, and how much time retrieval costs.

The unit is a blank: a place in a file from which text was removed. The model completes each blank twice, without and
with chunks of other files in the prompt, and both results form one row of a CSV file. A policy decides at which blanks
to retrieve, so it selects one of the two results of each row. Any number of policies and thresholds can therefore be
compared without running the model again. One of the policies is the oracle: it always selects the better result, so no
policy can do better. Only latency (`latency.py`) and the simulated typist (`typist.py`) need further model runs.
"""
