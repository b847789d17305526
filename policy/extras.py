"""Tell the user how to install an extra (a set of optional dependencies) of this package.

The package has no release yet, so the command runs in a clone of the repository.
"""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the command that reinstalls this package with `extra`. It has to run in a clone of the repository."""
    return f"uv tool install --reinstall '.[{extra}]'"


def advice(extra: str) -> str:
    """Return a sentence that tells the user how to install an extra."""
    return f"In a clone of the repository, run `{install_command(extra)}`."
