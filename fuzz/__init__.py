"""Coverage-guided fuzzing of what reads input from outside: `make fuzz`, or `python -m fuzz --help`."""
