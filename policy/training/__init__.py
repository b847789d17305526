"""The self-supervised training pipeline: corpus, blanks, adapt, label, probes, finetune, export, gate.

Each step is one module and one command. A step reads the artefact of the previous step and writes its own artefact with
a manifest. The server never imports this package. `torch` comes with the `train` extra, and each module imports it only
when it needs it.
"""
