"""The ignore files that apply to a workspace folder: `.gitignore`, `.repoformerignore` and git's own exclude files.

The first file with a matching pattern decides: the ignore file nearest to a path, then those of the directories above
it, then the repository's `info/exclude`, then the user's `core.excludesFile`. For a repository inside the folder (a
submodule, a clone), git uses only the ignore files in that repository, so a `.gitignore` outside of it does not apply
to its files. A `.repoformerignore` does apply, because the user wrote it for this index.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer import git
from indexer.ignore import Patterns, split_lines

GIT_IGNORE, OWN_IGNORE = ".gitignore", ".repoformerignore"
IGNORE_FILES = (GIT_IGNORE, OWN_IGNORE)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the ignore files say about a path, and the pattern that says so."""

    ignores: bool
    source: str
    line: int
    pattern: str


class IgnoreFiles:
    """The ignore files of one workspace folder. Each is read once: make a new object when one of them changes.

    `submodules` has the paths of the submodules found so far. Git tracks submodules, so no ignore file of the outer
    repository leaves them out. Two threads may use one object: one scans the folder, and the other checks files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        real = Path(os.path.realpath(root))  # git also takes the real path of a folder that is opened through a link
        top = git.top_of(real)
        self._is_top = top == real
        settings = git.settings_of(top)
        self._ignore_case = git.is_true(settings.get("core.ignorecase"))
        lead = real.relative_to(top).as_posix() if top is not None and top != real else ""
        above = [at for at in real.parents if top is not None and at.is_relative_to(top)]
        self._above = [self._read(at, lead=real.relative_to(at).as_posix()) for at in above]
        named = settings.get("core.excludesfile")
        # An empty value means that the user has no exclude file.
        self._user_file = git.config_home() / "git" / "ignore" if named is None else git.expanded(named or os.devnull)
        self._excludes = self._exclude_files(top, lead=lead)
        self._in_directory: dict[str, tuple[Patterns | None, Patterns | None]] = {}
        self._repositories: dict[str, list[Patterns]] = {}  # the exclude files of each repository inside the folder
        self._plain_directories: set[str] = set()
        inside = f"{lead}/" if lead else ""
        self.submodules = frozenset(
            path.removeprefix(inside) for path in (git.submodules_of(top) if top else ()) if path.startswith(inside)
        )
        self._lock = threading.Lock()

    def decide(self, path: str) -> Decision | None:
        """Return what the ignore files say about a path relative to the root, or None if no pattern matches it.

        A directory's path ends in "/". Only the path itself is matched, not its parent directories.
        """
        for patterns in self._chain(path):
            decision = patterns.decide(path)
            if decision is not None:
                pattern = patterns.deciding(path)
                line, text = (pattern.line, pattern.text) if pattern else (0, "")
                return Decision(decision, patterns.source, line, text)
        return None

    def leads_to_submodule(self, directory: str) -> bool:
        """Return whether a directory (path ends in "/") contains a submodule."""
        return any(f"{path}/".startswith(directory) for path in self.submodules)

    def enter(self, directory: str) -> bool:
        """Register a directory (path ends in "/"); return False for a linked worktree, which is a second copy of files.

        Call this before calling `decide` for paths in the directory.
        """
        name = directory[:-1]
        if name in self._plain_directories:
            return True
        at = self.root / name
        if name not in self._repositories:
            if not git.is_repository(at):
                self._plain_directories.add(name)
                return True
            excludes, submodules = self._exclude_files(at, base=name), git.submodules_of(at)
            with self._lock:
                # A new set, because another thread may iterate over the old one.
                self.submodules |= {f"{directory}{path}" for path in submodules}
                self._repositories[name] = excludes
        return not git.is_linked_worktree(at)

    def knows_repository(self, directory: str) -> bool:
        """Return whether a directory (relative path, "" for the root) is a repository if and only if it was one before.

        "Before" means when this object was made or, for a directory inside the root, when the directory was entered. If
        it was not entered, return True.
        """
        was_repository = directory in self._repositories if directory else self._is_top
        if directory and not was_repository and directory not in self._plain_directories:
            return True
        return was_repository == git.is_repository(self.root / directory)

    def _chain(self, path: str) -> Iterator[Patterns]:
        """Yield the ignore files that apply to a path, the one that takes precedence first."""
        directory = path.rstrip("/").rpartition("/")[0]
        repository: str | None = None  # the innermost repository (inside the folder) that contains the path
        while True:
            own, gits = self._read_inside(directory)
            if own is not None:
                yield own
            if gits is not None and repository is None:
                yield gits
            if not directory:
                break
            if repository is None and directory in self._repositories:
                repository = directory
            directory = directory.rpartition("/")[0]
        for own, gits in self._above:
            if own is not None:
                yield own
            if gits is not None and repository is None:
                yield gits
        yield from self._excludes if repository is None else self._repositories[repository]

    def _read_inside(self, directory: str) -> tuple[Patterns | None, Patterns | None]:
        known = self._in_directory.get(directory)
        if known is None:
            known = self._in_directory[directory] = self._read(self.root / directory, base=directory)
        return known

    def _read(self, directory: Path, *, base: str = "", lead: str = "") -> tuple[Patterns | None, Patterns | None]:
        """Return a directory's `.repoformerignore` and `.gitignore`."""
        own, gits = (
            read_patterns(directory / name, base=base, lead=lead, ignore_case=self._ignore_case, follow=False)
            for name in (OWN_IGNORE, GIT_IGNORE)
        )
        return own, gits

    def _exclude_files(self, top: Path | None, *, base: str = "", lead: str = "") -> list[Patterns]:
        """Return a repository's `info/exclude` and the user's exclude file, which are relative to the repository."""
        files = [self._user_file] if top is None else [git.common_directory(top) / "info" / "exclude", self._user_file]
        found = (read_patterns(file, base=base, lead=lead, ignore_case=self._ignore_case) for file in files)
        return [patterns for patterns in found if patterns is not None]


def read_patterns(
    file: Path, *, base: str = "", lead: str = "", ignore_case: bool = False, follow: bool = True
) -> Patterns | None:
    """Read an ignore file. Return None if it does not exist, cannot be read, or has no pattern."""
    data = git.read_regular(file, follow=follow)
    if not data:
        return None
    patterns = Patterns(str(file), split_lines(data), base=base, lead=lead, ignore_case=ignore_case)
    return patterns if patterns.patterns else None
