"""Read git's own files about a directory: the tops of repositories, linked worktrees, submodules, settings.

No function runs `git`: it may not be installed, and a scan asks about thousands of directories.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MAX_INCLUDES = 10
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b"}


def is_repository(directory: Path) -> bool:
    """Return whether a directory is the top of a repository, a submodule or a linked worktree."""
    return os.path.lexists(directory / ".git")


def is_linked_worktree(directory: Path) -> bool:
    """Return whether a directory was made by `git worktree add`.

    The `.git` of such a directory is a file that names a worktree.
    """
    target = _gitdir_of_file(directory / ".git")
    if target is None:
        return False
    # If the repository was moved or is not mounted, the path still shows that this is a worktree.
    return target.parent.name == "worktrees" or (target / "commondir").exists()


def top_of(directory: Path) -> Path | None:
    """Return the top directory of the repository that contains a directory, or None."""
    return next((at for at in (directory, *directory.parents) if is_repository(at)), None)


def common_directory(top: Path) -> Path:
    """Return the directory with a repository's settings, which all its worktrees share.

    For most repositories it is `.git`.
    """
    target = _gitdir_of_file(top / ".git")
    if target is None:
        return top / ".git"
    try:
        common = (target / "commondir").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return target
    return target / common


def submodules_of(top: Path) -> frozenset[str]:
    """Return the paths of a repository's submodules, relative to its top."""
    entries = _read_config(top / ".gitmodules")
    return frozenset(
        value.strip("/") for key, value in entries if key.startswith("submodule.") and key.endswith(".path")
    )


def settings_of(top: Path | None) -> dict[str, str]:
    """Return the git settings that apply in a repository, by lower-case name such as "core.ignorecase".

    With `top` None, return the settings that apply outside of repositories.
    """
    files = [Path("/etc/gitconfig")]
    if (named := os.environ.get("GIT_CONFIG_GLOBAL")) is not None:
        files.append(Path(named))
    else:
        files += [config_home() / "git" / "config", expanded("~/.gitconfig")]
    if top is not None:
        files.append(common_directory(top) / "config")
    return {key: value for file in files for key, value in _read_config(file)}


def config_home() -> Path:
    """Return the directory of the user's settings that git uses."""
    return expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config")


def expanded(path: str) -> Path:
    """Expand `~` and `~user`. Unlike `Path.expanduser`, do not raise for a user without an entry or a home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def read_regular(file: Path, *, follow: bool = True) -> bytes | None:
    """Return the content of a regular file, or None for anything else (reading a pipe may block) and on errors.

    Git does not follow a symbolic link to an ignore file inside the working tree. `follow` is False for those files.
    """
    try:
        if not stat.S_ISREG((file.stat() if follow else file.lstat()).st_mode):
            return None
        return file.read_bytes()
    except (OSError, ValueError):
        return None


def _gitdir_of_file(file: Path) -> Path | None:
    """Return the directory that a `.git` file names, or None if `file` is no such file."""
    data = read_regular(file) or b""
    if not data.startswith(b"gitdir:"):
        return None
    return Path(os.path.normpath(file.parent / os.fsdecode(data.removeprefix(b"gitdir:").strip())))


def _read_config(file: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield names ("section.name", "section.subsection.name") and values of a git configuration file."""
    section = ""
    text = (read_regular(file) or b"").decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for line in text.replace("\\\n", "").split("\n"):
        line = line.strip()
        if line.startswith("["):
            heading, _, line = line[1:].partition("]")
            name, _, sub = heading.partition(" ")
            section = name.lower() + (f".{_value(sub)}" if sub else "")
            line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        key = f"{section}.{name.strip().lower()}"
        if key == "include.path" and depth < _MAX_INCLUDES:
            yield from _read_config(file.parent / expanded(_value(value)), depth + 1)
        else:
            yield key, _value(value) if equals else "true"


def _value(text: str) -> str:
    """Return a configuration value without its comment, quotes and escapes."""
    value, quoted, kept = "", False, 0
    characters = iter(text.strip())
    for character in characters:
        if character == '"':
            quoted = not quoted
            kept = len(value)
        elif character == "\\":
            following = next(characters, "")
            value += _ESCAPES.get(following, following)
            kept = len(value)
        elif character in "#;" and not quoted:
            break
        else:
            value += character
            kept = len(value) if quoted or not character.isspace() else kept
    return value[:kept]
