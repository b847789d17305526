"""Fit what a generator writes to the text around the cursor: one rule a module, for every generator."""
