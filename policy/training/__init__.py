"""The self-supervised pipeline that makes a Repoformer: corpus, blanks, adapt, label, probes, finetune, export, gate.

Each step is one module and one command, reads the artefact of the step before it and leaves its own with a manifest
beside it. Nothing here is imported by the server; `torch` is the `train` extra's and is imported where it is used.
"""
