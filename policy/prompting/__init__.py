"""The contents of a prompt: layouts, token budgets, and the part of a file that the engine receives."""
