"""What goes into a prompt: layouts, budgets, and how much of a file the engine receives."""
