"""Ignore files: which of `.gitignore`'s patterns decides about a path.

`pathspec` translates each pattern to a regular expression. Patterns of one sign that follow each other are then
joined into one expression, since a walk asks about each entry of each directory: on a workspace of ten thousand files
this is the difference between asking fifty expressions a file and asking two. The walk never enters an ignored
directory, as git does not, so each entry only has to be matched itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

IGNORE_FILES = (".gitignore", ".repoformerignore")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file; `ignores` is False for a negated one."""

    text: str
    line: int
    ignores: bool
    regex: str


class Patterns:
    """The patterns of one ignore file, relative to the directory `base` (POSIX, relative to the root, "" for itself).

    `lead` stands before each path instead, for an ignore file above the root.
    """

    def __init__(self, source: str, lines: Iterable[str], *, base: str = "", lead: str = "") -> None:
        self.source = source
        self._base = f"{base}/" if base else ""
        self._lead = f"{lead}/" if lead else ""
        self.patterns = tuple(_translated(lines))
        groups = [(sign, list(group)) for sign, group in groupby(self.patterns, key=lambda p: p.ignores)]
        self._groups = [
            (sign, re.compile("|".join(f"(?:{pattern.regex})" for pattern in group)))
            for sign, group in reversed(groups)
        ]

    def decide(self, path: str) -> bool | None:
        """Tell whether a path (a directory's ends in "/") is ignored; None if no pattern speaks of it."""
        name = self._name(path)
        if name is not None:
            ignores: bool
            for ignores, regex in self._groups:
                if regex.match(name):
                    return ignores
        return None

    def deciding(self, path: str) -> Pattern | None:
        """Return the pattern that decides about a path: the last that matches."""
        name = self._name(path)
        if name is None:
            return None
        return next((p for p in reversed(self.patterns) if re.match(p.regex, name)), None)

    def _name(self, path: str) -> str | None:
        return self._lead + path[len(self._base) :] if path.startswith(self._base) else None


def read_patterns(file: Path, *, base: str = "", lead: str = "") -> Patterns | None:
    """Read an ignore file; None if there is none, or it cannot be read, or it says nothing."""
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return None
    patterns = Patterns(str(file), text.splitlines(), base=base, lead=lead)
    return patterns if patterns.patterns else None


def outer_patterns(root: Path) -> list[Patterns]:
    """Return what git would apply to `root` from outside of it, weakest first.

    That is the person's global excludes, the repository's `info/exclude`, and the ignore files of the directories
    between the repository's top and `root`.
    """
    found = [read_patterns(file) for file in _global_excludes()]
    top = next((at for at in (root, *root.parents) if (at / ".git").exists()), None)
    if top is not None:
        lead = root.relative_to(top).as_posix() if top != root else ""
        found.append(read_patterns(_git_directory(top) / "info" / "exclude", lead=lead))
        for above in reversed([at for at in root.parents if at.is_relative_to(top)]):
            lead = root.relative_to(above).as_posix()
            found.extend(read_patterns(above / name, lead=lead) for name in IGNORE_FILES)
    return [patterns for patterns in found if patterns is not None]


def _translated(lines: Iterable[str]) -> Iterable[Pattern]:
    for number, line in enumerate(lines, 1):
        try:
            regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(line)
            if regex is None or ignores is None:
                continue
            # A path matches itself alone here: what lies in an ignored directory is never asked about, and a negated
            # directory does not bring back the files in it.
            exact = regex.replace("(?:(?P<ps_d>/)|$)", "/?$").replace("(?P<ps_d>/)", "/$")
            re.compile(exact)
        except (ValueError, re.error):
            continue  # git, too, passes over a pattern that makes no sense
        yield Pattern(line.strip(), number, ignores, exact)


def _git_directory(top: Path) -> Path:
    """Return the repository's own directory; in a worktree or a submodule `.git` is a file that names it."""
    git = top / ".git"
    if git.is_file():
        try:
            named = git.read_text("utf-8").partition("gitdir:")[2].strip()
            git = (top / named).resolve()
            common = git / "commondir"
            return (git / common.read_text("utf-8").strip()).resolve() if common.exists() else git
        except OSError:
            return git
    return git


def _global_excludes() -> Iterable[Path]:
    """Yield the file that git's `core.excludesFile` names, or else its default place."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    for file in (home / ".gitconfig", config / "git" / "config"):
        try:
            match = re.search(r'^\s*excludesfile\s*=\s*"?([^"\n]+)', file.read_text("utf-8"), re.I | re.M)
        except (OSError, UnicodeDecodeError):
            continue
        if match:
            yield Path(match[1].strip()).expanduser()
            return
    yield config / "git" / "ignore"
