"""Find, download and check model files."""
