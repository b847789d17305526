"""Read git's own files about a directory: top directories of repositories, linked worktrees, submodules, settings.

No function runs `git`: it may not be installed, and a scan asks about thousands of directories.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from indexer.ignore import Patterns

_MAX_INCLUDES = 10
_INCLUDE_IF = re.compile(r"includeif\.gitdir(/i)?:(.+)\.path", re.DOTALL)
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
    # The functions of `os.path` raise no errors, for instance if a folder cannot be read.
    if os.path.isdir(target):  # noqa: PTH112
        return os.path.exists(target / "commondir")  # noqa: PTH110
    # If the repository was moved or is not mounted, the path still shows that this is a worktree. In `.git/modules`, it
    # may also be a submodule in a folder with the name `worktrees`.
    return target.parent.name == "worktrees" and target.parent.parent.name != "modules"


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
    repository: Path | None = None
    if top is not None:
        repository = _gitdir_of_file(top / ".git") or top / ".git"
        files.append(common_directory(top) / "config")
    settings = {key: value for file in files for key, value in _read_config(file, repository)}
    if repository is not None and is_true(settings.get("extensions.worktreeconfig")):
        settings |= _read_config(repository / "config.worktree", repository)
    return settings | dict(_from_environment())


def is_true(value: str | None) -> bool:
    """Return whether git reads the value of a setting as true: `true`, `yes`, `on`, or a number that is not 0."""
    if value is None:
        return False
    try:
        return int(value) != 0
    except ValueError:
        return value.lower() in {"true", "yes", "on"}


def _from_environment() -> Iterator[tuple[str, str]]:
    """Yield the settings that environment variables set."""
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    for number in range(int(count) if count.isdecimal() and len(count) < 4 else 0):
        key, value = (os.environ.get(f"GIT_CONFIG_{part}_{number}") for part in ("KEY", "VALUE"))
        if key and value is not None:
            yield key.lower(), value


def config_home() -> Path:
    """Return the directory in which git looks for the user's settings."""
    return expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config")


def expanded(path: str) -> Path:
    """Expand `~` and `~user`. Unlike `Path.expanduser`, do not raise if the user is unknown or has no home folder."""
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
    """Return the directory that a `.git` file names, or None if `file` does not name one."""
    data = read_regular(file) or b""
    if not data.startswith(b"gitdir:"):
        return None
    return Path(os.path.normpath(file.parent / os.fsdecode(data.removeprefix(b"gitdir:").strip())))


def _read_config(file: Path, repository: Path | None = None, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield names ("section.name", "section.subsection.name") and values of a git configuration file.

    Included files are read too, if they are included always or for the directory of `repository`. Files that are
    included for a branch are not read.
    """
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
        if depth < _MAX_INCLUDES and (key == "include.path" or _includes(key, file, repository)):
            yield from _read_config(file.parent / expanded(_value(value)), repository, depth + 1)
        else:
            yield key, _value(value) if equals else "true"


def _includes(key: str, file: Path, repository: Path | None) -> bool:
    """Return whether `key` is "includeIf.gitdir:PATTERN.path" (or "gitdir/i") with a pattern that matches."""
    match = _INCLUDE_IF.fullmatch(key)
    if match is None or repository is None:
        return False
    pattern = match[2]
    if pattern.startswith("./"):
        pattern = f"{file.parent}/{pattern[2:]}"
    elif pattern.startswith("~"):
        pattern = str(expanded(pattern)) + ("/" if pattern.endswith("/") else "")
    elif not pattern.startswith("/"):
        pattern = f"**/{pattern}"
    if pattern.endswith("/"):
        pattern += "**"
    patterns = Patterns(str(file), [os.fsencode(pattern)], ignore_case=bool(match[1]))
    return any(patterns.decide(str(at).lstrip("/")) for at in (repository, repository.resolve()))


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
