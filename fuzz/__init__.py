"""Coverage-guided fuzzing of the code that reads external input: `make fuzz`, or `python -m fuzz --help`."""
