"""The self-supervised training pipeline: corpus, blanks, adapt, label, probes, finetune, export, gate.

Each step is one module and one command (`repoformer-lsp train STEP`). A step reads the artifacts of earlier steps and
writes its own artifact with a manifest. One more command, `keep`, needs only evaluation results of a finished model.
The server never imports this package. `torch` comes with the `train` extra. The command line imports a step's module,
and with it torch, only when the step runs.
"""
