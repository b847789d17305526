"""Fit a generated text to the text around the cursor. `policy.completion.shape` describes the steps and modules."""
