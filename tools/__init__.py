"""Commands for developers of the project, such as for releases and generated files."""
