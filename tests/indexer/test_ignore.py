"""Ignore files: cases that other tools often get wrong, and nested repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from indexer.ignore import Patterns, split_lines
from indexer.ignore_files import IgnoreFiles
from indexer.rules import Rules
from indexer.settings import IndexSettings

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git to create repositories")


@pytest.fixture(autouse=True)
def no_ignore_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)


def git(*arguments: str | Path, at: Path) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *identity, *arguments], cwd=at, check=True, capture_output=True)


def repository(at: Path, files: dict[str, str]) -> Path:
    """Create a git repository with `files` in the folder `at`, and commit all of them, even ignored ones."""
    write(at, files)
    git("init", "-q", at=at)
    git("add", "--force", ".", at=at)
    git("commit", "-qm", "Begin", at=at)
    return at


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def indexed(root: Path, settings: IndexSettings | None = None) -> set[str]:
    """Return the files that a scan finds, and check that `why_not` gives a reason for every other file."""
    rules = Rules(root, settings or IndexSettings())
    found = {entry.path for entry in rules.walk()}
    fresh = Rules(root, settings or IndexSettings())
    for file in root.rglob("*.py"):
        path = file.relative_to(root).as_posix()
        assert (fresh.why_not(path) is None) == (path in found), path
    return found


@pytest.mark.parametrize(
    ("content", "ignored", "kept"),
    [
        (b"*\n!*/\n!*.py\n", ["a.ts", "d/a.ts"], ["d/", "a.py", "d/a.py"]),
        (b"**/\n", ["d/", "d/e/"], ["a.py"]),
        (b"src/**/\n", ["src/d/"], ["src/", "src/a.py", "d/"]),
        (b"tmp-[[:digit:]]\n", ["tmp-1", "d/tmp-2/"], ["tmp-x"]),
        (b"[[:upper:]]*.py\n", ["Up.py"], ["up.py", "uP.py"]),
        (b"*\n!*/\n!.gitignore\n!*.py\n!*.ts\n", ["a.md"], [".gitignore", "d/a.py", "a.ts"]),
        (b"na?ve.py\n", ["naive.py"], ["naïve.py"]),
        (b"na??ve.py\n", ["naïve.py"], ["naive.py"]),
        (b"Icon\r\r\n", ["Icon\r"], ["Icon", "components/Icon/"]),
        (b"\xef\xbb\xbflegacy/\n", ["legacy/"], ["legacy"]),
        (b"a.py\rb.py\n", [], ["a.py", "b.py"]),
        (b"a.py\x0cb.py\nc.py", ["c.py"], ["a.py", "b.py"]),
        ("a.py\u2028b.py\u0085c.py\n".encode(), [], ["a.py", "b.py", "c.py"]),
        (b"a\\ \nb \nc\t\n", ["a ", "b", "c\t"], ["a", "c"]),
        (b"foo**/bar\n", ["foo/bar", "foo/x/bar", "foox/y/bar", "foobar"], ["bar", "xfoo/bar"]),
    ],
)
def test_one_ignore_file(content: bytes, ignored: list[str], kept: list[str]) -> None:
    patterns = Patterns("x", split_lines(content))
    assert [path for path in (*ignored, *kept) if patterns.decide(path)] == ignored


def test_case_matters_unless_the_repository_ignores_it() -> None:
    lines = [b"Build/", b"*.LOG", b"[A-C].py"]
    paths = ["build/", "a.log", "b.py"]
    assert [Patterns("x", lines).decide(path) for path in paths] == [None, None, None]
    assert [Patterns("x", lines, ignore_case=True).decide(path) for path in paths] == [True, True, True]


@pytest.mark.parametrize(
    "pattern", [b"*a" * 30 + b"b", b"**/a*" * 30 + b"b", b"x/" + b"**/*a/" * 30 + b"b", b"?*" * 40 + b"b"]
)
def test_matching_time_is_not_exponential(pattern: bytes) -> None:
    """If each star became `.*` in a regular expression, matching one of these patterns would take years."""
    patterns = Patterns("x", [pattern])
    path = "x/" + "/".join(["a" * 60] * 30)
    for _ in range(20):
        assert patterns.decide(path) is None


@needs_git
def test_an_outer_ignore_file_does_not_apply_in_other_repositories(tmp_path: Path) -> None:
    library = repository(
        tmp_path / "library", {"generated/api.py": "x = 1\n", "own.py": "", ".gitignore": "own_only.py\n"}
    )
    root = repository(tmp_path / "ws", {".gitignore": "generated/\n*_tmp.py\n/cache/\n", "main.py": ""})
    git("submodule", "add", "-q", library, "modules/sub", at=root)
    git("clone", "-q", library, root / "clone", at=root)
    git("clone", "-q", library, root / "cache" / "clone", at=root)
    write(root, {"generated/api.py": "", "clone/own_only.py": "", "clone/deep/x_tmp.py": "", "x_tmp.py": ""})
    inside = {"generated/api.py", "own.py"}
    expected = {"main.py", *(f"modules/sub/{path}" for path in inside), *(f"clone/{path}" for path in inside)}
    assert indexed(root) == {*expected, "clone/deep/x_tmp.py"}
    # In contrast to `.gitignore`, `.repoformerignore` also applies in nested repositories.
    write(root, {".repoformerignore": "own.py\ndeep/\n"})
    assert indexed(root) == {path for path in expected if not path.endswith("own.py")}
    assert indexed(root / "modules") == {"sub/generated/api.py"}


@needs_git
def test_a_submodule_is_indexed_even_if_an_ignore_file_matches_it(tmp_path: Path) -> None:
    library = repository(tmp_path / "library", {"api.py": "x = 1\n"})
    root = repository(tmp_path / "ws", {".gitignore": "vendored/\n", "vendored/other.py": "", "main.py": ""})
    git("submodule", "add", "-q", "--force", library, "vendored/deep/sub", at=root)
    assert indexed(root) == {"main.py", "vendored/deep/sub/api.py"}


@needs_git
@pytest.mark.parametrize("moved", [False, True])
def test_a_linked_worktree_is_left_out_unless_it_is_the_root(tmp_path: Path, moved: bool) -> None:
    root = repository(tmp_path / "ws", {"main.py": "", "pkg/a.py": ""})
    git("worktree", "add", "-q", ".worktrees/feature", at=root)
    git("worktree", "add", "-q", tmp_path / "beside", "-b", "beside", at=root)
    assert indexed(root / ".worktrees" / "feature") == {"main.py", "pkg/a.py"}
    assert indexed(tmp_path / "beside") == {"main.py", "pkg/a.py"}
    assert indexed(tmp_path / "beside" / "pkg") == {"a.py"}
    if moved:
        shutil.rmtree(root / ".git")
        git("init", "-q", at=root)
    assert indexed(root) == {"main.py", "pkg/a.py"}
    reason = Rules(root, IndexSettings()).why_not(".worktrees/feature/main.py")
    assert reason is not None
    assert reason.rule == "worktree"
    brought_back = IndexSettings(include=(".worktrees/feature/",))
    assert ".worktrees/feature/main.py" in indexed(root, brought_back)


def test_submodules_are_found_while_another_thread_looks_at_them(tmp_path: Path) -> None:
    root, modules = tmp_path / "ws", '[submodule "a"]\n\tpath = a\n[submodule "b"]\n\tpath = b\n'
    write(root, {"inner/.git/config": "", "inner/.gitmodules": modules, ".git/config": "", ".gitmodules": modules})
    files = IgnoreFiles(root)
    seen = iter(files.submodules)
    first = next(seen)
    assert files.enter("inner/")
    assert {first, *seen} == {"a", "b"}
    assert files.submodules == {"a", "b", "inner/a", "inner/b"}


@needs_git
def test_a_submodule_may_be_in_a_folder_named_worktrees(tmp_path: Path) -> None:
    library = repository(tmp_path / "library", {"api.py": ""})
    root = repository(tmp_path / "ws", {"main.py": ""})
    git("submodule", "add", "-q", library, "worktrees/x", at=root)
    assert indexed(root) == {"main.py", "worktrees/x/api.py"}
    git("worktree", "add", "-q", root / "copy", at=root / "worktrees" / "x")
    assert indexed(root) == {"main.py", "worktrees/x/api.py"}


@needs_git
def test_a_worktree_and_a_submodule_have_ignore_rules_of_their_own(tmp_path: Path) -> None:
    root = repository(tmp_path / "ws", {"main.py": "", ".gitignore": "a.py\n"})
    write(root, {".git/info/exclude": "excluded.py\n"})
    git("worktree", "add", "-q", tmp_path / "beside", at=root)
    write(tmp_path / "beside", {"a.py": "", "excluded.py": "", "kept.py": ""})
    assert indexed(tmp_path / "beside") == {"main.py", "kept.py"}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("[core]\n\texcludesFile = ~/mine\n", "mine"),
        ('[user]\nname = x\n[Core]\n  excludesfile="~/my ignores" ; a comment\n', "my ignores"),
        ("[include]\npath = more.cfg\n", "mine"),
        ("", ".config/git/ignore"),
    ],
)
def test_the_users_own_exclude_file(tmp_path: Path, config: str, name: str) -> None:
    more = "[core]\nexcludesfile = ~/mine\n"
    write(tmp_path / "home", {".gitconfig": config, "more.cfg": more, name: "/noise.py\n"})
    write(tmp_path / "ws", {"noise.py": "", "sub/noise.py": "", "sub/deep/noise.py": "", "sub/.git/HEAD": ""})
    # The patterns of the user's global ignore file are relative to the root of each repository.
    assert indexed(tmp_path / "ws") == {"sub/deep/noise.py"}


def test_an_ignore_file_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"ws/a.py": "", "ws/pkg/b.py": "", "elsewhere": "*.py\n"})
    try:
        (tmp_path / "ws" / ".gitignore").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(tmp_path / "ws" / "pkg" / ".gitignore")
    except (OSError, AttributeError):
        pytest.skip("this system has no links or named pipes")
    assert indexed(tmp_path / "ws") == {"a.py", "pkg/b.py"}
