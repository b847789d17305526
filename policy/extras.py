"""Name the command that installs an extra of this package. There is no release yet, so it runs in a clone."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the command that installs this package again with an extra, to run in a clone of the repository."""
    return f"uv tool install --reinstall '.[{extra}]'"


def advice(extra: str) -> str:
    """Return a sentence that tells the user how to install an extra."""
    return f"In a clone of the repository, run `{install_command(extra)}`."
