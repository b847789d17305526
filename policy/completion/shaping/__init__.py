"""Fit a generated text to the text around the cursor: one rule per module, for every generator."""
