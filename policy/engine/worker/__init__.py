"""The worker process. Only this package loads llama.cpp."""
