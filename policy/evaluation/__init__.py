"""Does retrieval help, does the model know when, and what does it cost: figures that one command repeats.

Every blank is completed twice, with and without cross-file context, and a line of CSV keeps all that happened. Every
policy, threshold and budget is then a choice between two columns of that file: comparing them costs no further model
time, and the oracle, which no policy can beat, is there for free. What is measured live is time (`latency.py`) and the
effort of a simulated typist (`typist.py`), since neither follows from the two columns.
"""
