"""Evaluation: does retrieval help, does the model know when, and what does it cost? One command repeats all figures.

Every blank is completed twice, with and without cross-file context, and each blank is one row of a CSV file. Every
policy, threshold and budget is then a choice between two columns of that file: comparing them takes no further model
time, and the oracle, which no policy can beat, follows from the same columns. Only latency (`latency.py`) and the
effort of a simulated typist (`typist.py`) are measured separately.
"""
