"""Decide which files of a folder are indexed. `Rules.why_not` returns the reason why a file is left out.

The rules apply in this order: files that must never be read (keys, credentials, links), the setting `exclude`, the
setting `include`, ignore files (the one in the deepest directory first), directories of installed or generated files,
and files that no retriever can use (lock files, minified files, extensions that the language table does not know).
`walk` applies the same rules to every entry, and enters only directories that may contain an indexed file.
`indexer.reading` adds the rules that depend on a file's content.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from indexer.ignore import Patterns
from indexer.ignore_files import IgnoreFiles
from indexer.languages import SHEBANG_LENGTH, language_of
from indexer.settings import IndexSettings

Rule = Literal[
    "outside", "missing", "link", "special", "secret", "exclude", "ignored", "worktree", "directory", "lock",
    "minified", "generated", "kind", "size", "binary", "unreadable",
]  # fmt: skip

_SECRET_NAME = re.compile(
    r"""\.env(?:rc)?(?:\..*)?|.*\.(?:env|pem|key|p12|pfx|jks|keystore|kdbx|asc|gpg|ppk|ovpn)|id_(?:rsa|dsa|ecdsa|ed25519).*
    |\.(?:netrc|pgpass|npmrc|pypirc|htpasswd|git-credentials|dockercfg|my\.cnf|mylogin\.cnf|s3cfg|boto|renviron)|_netrc
    |authorized_keys|known_hosts|ssh_host_.*_key|kubeconfig|local\.settings\.json|client_secret.*\.json
    |\.(?:\w+[_-])?(?:pass(?:word|wd|phrase)?|token)s?
    |(?:.*[._-])?(?:(?:pass(?:word|wd|phrase)?|api[_-]?key|secret[_-]?key)s?|token)\.txt
    |(?:.*[._-])?(?:password|api[_-]?key|secret[_-]?key)s\.(?:json|ya?ml|toml|ini|csv|properties|xml)
    |(?:.*[._-])?(?:credentials?|secrets?)(?:\.(?:json|ya?ml|toml|ini|cfg|conf|txt|properties|xml|env|sh|tf|tfvars|sql))?
    |.*\.tfstate(?:\..*)?|.*\.tfvars(?:\.json)?|.*service[-_]?account.*\.json|.*-firebase-adminsdk-.*\.json
    |firebase-adminsdk.*\.json""",
    re.VERBOSE | re.IGNORECASE,
)
_LOCK_NAME = re.compile(
    r"(?:package-lock|npm-shrinkwrap|composer-lock)\.json|.*[.-]lock(?:\.(?:json|ya?ml|hcl))?|go\.sum|pnpm-lock\.yaml",
    re.I,
)
_MINIFIED_NAME = re.compile(r".+\.min\.(?:[cm]?jsx?|css)", re.I)
_GENERATED_NAME = re.compile(r".*_pb2(?:_grpc)?\.pyi?|.*\.pb\.(?:go|cc|h)|.*\.g\.(?:cs|dart)|.*\.designer\.cs", re.I)
_DIRECTORIES = frozenset((
    ".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "node_modules", "bower_components", "jspm_packages", "__pycache__",
    ".venv", "venv", ".virtualenv", ".tox", ".nox", ".eggs", "site-packages", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", ".hypothesis", ".cache", ".gradle", ".idea", ".vs", ".next", ".nuxt", ".svelte-kit",
    ".terraform", ".ssh", ".gnupg", ".aws", ".kube", ".dart_tool", ".ipynb_checkpoints",
))  # fmt: skip
_PRIVATE_DIRECTORIES = frozenset((".ssh", ".gnupg", ".aws", ".kube"))
_LITERAL_PREFIX = re.compile(r"^/?([^*?\[\\!]*)/")


def too_large(size: str, limit: int) -> str:
    """Return the `detail` of a `Reason` with the rule "size".

    `size` describes the file's size in words, and `limit` is in bytes.
    """
    return f"{size}; files over {limit:,} bytes are not indexed"


def mtime_ns_of(status: os.stat_result) -> int:
    """Return a file's modification time in nanoseconds, limited to what a database stores (64 bits, until 2262)."""
    return max(min(status.st_mtime_ns, 2**63 - 1), -(2**63))


def printable(text: str) -> str:
    """Escape the bytes of file names that are not UTF-8, so that the text can be printed."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a file is not in the index: the rule, and details that help the user to index the file after all."""

    rule: Rule
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", printable(self.detail))

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that the rules accept: its path (POSIX, relative to the root), modification time and size in bytes."""

    path: str
    mtime_ns: int
    size: int


class Rules:
    """The rules of one root. Each ignore file is read once: make a new object when one of them changes."""

    def __init__(self, root: Path, settings: IndexSettings) -> None:
        self.root = root
        self._settings = settings
        self._max_bytes = settings.max_file_bytes
        self._exclude = Patterns("the setting `exclude`", settings.exclude)
        self._include = Patterns("the setting `include`", settings.include)
        self._ignore_files = IgnoreFiles(root)
        # Files without an extension: modification time and size when they were read, and whether they are scripts.
        self._scripts: dict[str, tuple[tuple[int, int], bool]] = {}

    def renewed(self) -> Rules:
        """Return a new object, which reads the ignore files again. It keeps what is known about scripts."""
        rules = Rules(self.root, self._settings)
        rules._scripts = self._scripts
        return rules

    def why_not(self, path: str, *, buffer: str | None = None, lsp_id: str = "") -> Reason | None:
        """Return why the file at a relative path is left out for its name, location, kind or size.

        Return None if the file is accepted.

        The method reads at most the first line of the file, to find the language of a script without an extension.
        With `buffer` (the text of an open document, which may never have been saved), the file is not read and need not
        exist.
        """
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            return Reason("outside", f"{path} is not in {self.root}")
        blocked_by: Reason | None = None
        for parent in reversed([str(at) for at in pure.parents][:-1]):
            if _is_link(self.root / parent):
                return _link(self.root / parent)
            entered, blocked_by = self._directory(f"{parent}/", blocked_by)
            if not entered:
                return blocked_by
        if buffer is None:
            try:
                status = (self.root / path).lstat()
            except OSError as error:
                return Reason("missing", f"{path}: {error.strerror}")
            if stat.S_ISLNK(status.st_mode):
                return _link(self.root / path)
            if not stat.S_ISREG(status.st_mode):
                return Reason("special", f"{path} is not a regular file")
            return self._file(path, status.st_size, blocked_by) or self._kind(path, status)
        reason = self._file(path, len(buffer), blocked_by)
        return reason or (_no_kind(path) if language_of(path, lsp_id, buffer) is None else None)

    def knows_repository(self, directory: str) -> bool:
        """Return whether a directory still is, or still is not, the top of a repository. See `IgnoreFiles`."""
        return self._ignore_files.knows_repository(directory)

    def never_indexes(self, path: str) -> bool:
        """Return whether the path alone shows that a file is never indexed, as in `node_modules` or `.git`.

        The method does not access the disk.
        """
        return not self._include.patterns and not _DIRECTORIES.isdisjoint(path.split("/")[:-1])

    def enters(self, directory: str) -> bool:
        """Return whether a directory (relative path) may contain indexed files."""
        blocked_by: Reason | None = None
        for at in (*reversed([str(parent) for parent in PurePosixPath(directory).parents][:-1]), directory):
            entered, blocked_by = self._directory(f"{at}/", blocked_by)
            if not entered or _is_link(self.root / at):
                return False
        return True

    def walk(
        self,
        on_problem: Callable[[Reason], None] = lambda reason: None,
        *,
        on_directory: Callable[[str], None] = lambda directory: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Entry]:
        """Yield every file that the rules accept.

        `on_directory` gets each directory (relative path, "" for the root) just before it is listed. `on_problem` gets
        the reason when a directory cannot be read, and the walk continues without it. The walk ends early when
        `stopped` returns true.
        """
        todo: list[tuple[str, Reason | None]] = [("", None)]
        while todo and not stopped():
            directory, blocked_by = todo.pop()
            on_directory(directory.rstrip("/"))
            try:
                with os.scandir(self.root / directory) as entries:
                    for entry in entries:
                        path = f"{directory}{entry.name}"
                        try:
                            if entry.is_symlink():
                                continue
                            if entry.is_dir(follow_symlinks=False):
                                entered, reason = self._directory(f"{path}/", blocked_by)
                                if entered:
                                    todo.append((f"{path}/", reason))
                            elif entry.is_file(follow_symlinks=False) and _may_be_code(entry.name):
                                status = entry.stat(follow_symlinks=False)
                                reason = self._file(path, status.st_size, blocked_by)
                                if reason is None and self._kind(path, status) is None:
                                    yield Entry(path, mtime_ns_of(status), status.st_size)
                        except OSError:
                            continue  # the entry was deleted after it was listed
            except OSError as error:
                on_problem(Reason("unreadable", f"{directory or self.root}: {error.strerror}"))

    def _directory(self, path: str, blocked_by: Reason | None) -> tuple[bool, Reason | None]:
        """Return whether to enter a directory (path ends in "/"), and why its files are left out, or None.

        Call this only for a directory whose parent was entered. `blocked_by` is the reason why the files of the parent
        are left out, or None. A directory whose files are left out is entered only if it may contain submodules or
        files that `include` names.
        """
        if self._exclude.decide(path):
            return False, self._excluded(path)
        is_copy = not self._ignore_files.enter(path)
        if self._include.decide(path):
            return True, None
        name = path[:-1].rpartition("/")[2]
        if is_copy:
            blocked_by = Reason("worktree", f"{path} is a linked worktree of a repository: a second copy of its files")
        elif path[:-1] in self._ignore_files.submodules:
            blocked_by = None
        else:
            blocked_by = blocked_by or self._ignored(path)
        if blocked_by is None and name in _DIRECTORIES:
            blocked_by = Reason(
                "directory",
                f"{path} contains files that tools generate or install. To index it, add it to the setting `include`.",
            )
        enters = blocked_by is None or self._reaches_include(path)
        return enters or self._ignore_files.leads_to_submodule(path), blocked_by

    def _file(self, path: str, size: int, blocked_by: Reason | None) -> Reason | None:
        """Return why a file is left out for its name, its location or its size, or None.

        The file's directory was entered. `blocked_by` is the reason why the directory's files are left out, or None.
        """
        name = path.rpartition("/")[2]
        if _SECRET_NAME.fullmatch(name):
            return Reason("secret", f"a file named {name} may hold secrets and is never read")
        if self._exclude.decide(path):
            return self._excluded(path)
        if self._include.decide(path) is not True and (reason := blocked_by or self._ignored(path)):
            return reason
        if _LOCK_NAME.fullmatch(name):
            return Reason("lock", f"{name} is a lock file")
        if _MINIFIED_NAME.fullmatch(name):
            return Reason("minified", f"the name {name} is that of a minified file")
        if _GENERATED_NAME.fullmatch(name):
            return Reason("generated", f"the name {name} is that of a generated file")
        if size > self._max_bytes:
            return Reason("size", too_large(f"{size:,} bytes", self._max_bytes))
        return None

    def _kind(self, path: str, status: os.stat_result) -> Reason | None:
        """Return a reason if the language of a file is unknown, else None.

        The language follows from the file's name or, for a script without an extension, from its first line.
        """
        if language_of(path) is not None:
            return None
        if PurePosixPath(path).suffix:
            return _no_kind(path)
        known = self._scripts.get(path)
        seen = (status.st_mtime_ns, status.st_size)
        if known is None or known[0] != seen:
            known = self._scripts[path] = seen, language_of(path, text=_first_characters(self.root / path)) is not None
        return None if known[1] else _no_kind(path)

    def _excluded(self, path: str) -> Reason:
        pattern = self._exclude.deciding(path)
        return Reason("exclude", f"{path} matches `{pattern.text if pattern else ''}` in {self._exclude.source}")

    def _ignored(self, path: str) -> Reason | None:
        decision = self._ignore_files.decide(path)
        if decision is None or not decision.ignores:
            return None
        return Reason("ignored", f"{path} matches `{decision.pattern}` in {decision.source}, line {decision.line}")

    def _reaches_include(self, directory: str) -> bool:
        """Return whether a directory may contain something that `include` names."""
        for pattern in self._include.patterns:
            if not pattern.ignores:
                continue
            literal = _LITERAL_PREFIX.match(pattern.text)
            start = f"{literal[1]}/" if literal and literal[1] else ""
            if start and (start.startswith(directory) or directory.startswith(start)):
                return True
        return False


def _may_be_code(name: str) -> bool:
    return language_of(name) is not None or not PurePosixPath(name).suffix


def _first_characters(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(SHEBANG_LENGTH).decode("latin-1")
    except OSError:
        return ""


def _no_kind(path: str) -> Reason:
    return Reason("kind", f"{PurePosixPath(path).name} has no supported language")


def _is_link(path: Path) -> bool:
    # `Path.is_symlink` raises some errors, for instance for a name that is too long.
    return os.path.islink(path)  # noqa: PTH114


def _link(path: Path) -> Reason:
    return Reason("link", f"{path} is a link; its target is indexed under its own path if that is in the workspace")


def why_private(file: Path, roots: Sequence[Path], settings: IndexSettings) -> Reason | None:
    """Return why the text of a file (absolute path) must stay on this machine, or None if a server may receive it.

    The reasons are the rules by which the user, or a file name, marks a file as private. Rules that leave a file out
    because of its kind or size do not count. For a link, the rules apply to both the link and its target.
    """
    try:
        real = file.resolve()
    except (OSError, RuntimeError):  # a cycle of links
        real = file
    for place, folders in ((file, roots), (real, [root.resolve() for root in roots])):
        if _SECRET_NAME.fullmatch(place.name):
            return Reason("secret", f"a file named {place.name} may contain secrets")
        if private := _PRIVATE_DIRECTORIES.intersection(place.parent.parts):
            return Reason("secret", f"the files in {min(private)} may be secret")
        inside = [root for root in folders if place.is_relative_to(root) and place != root]
        if inside:
            root = max(inside, key=lambda at: len(at.parts))
            reason = Rules(root, settings).why_not(place.relative_to(root).as_posix(), buffer="")
            if reason is not None and reason.rule in ("secret", "exclude", "ignored", "directory"):
                return reason
    return None
