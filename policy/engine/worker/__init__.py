"""The worker process: it runs one model for all servers of a user. Only this package loads llama.cpp."""
