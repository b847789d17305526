"""The worker process: the only code that loads llama.cpp."""
