"""Compare the ignore rules of the index with git, for random ignore files and unusual file names."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from indexer.ignore_files import IgnoreFiles

# The number of random tests, each with several ignore files. For a long run:
# IGNORE_SEEDS=5000 python -m pytest tests/indexer/test_ignore_against_git.py
SEEDS = int(os.environ.get("IGNORE_SEEDS", "120"))
IGNORE_FILES_PER_SEED = 4

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git, with which the rules are compared"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with names of any bytes"),
]

DIRECTORIES = (
    b"src",
    b"src/a",
    b"src/a/b",
    b"foo",
    b"foo/bar",
    b"tmp-1",
    b"components/Icon",
    b"lib/na\xc3\xafve",
    b"A/b",
)
REPOSITORIES = ("", "src/inner", "foo/clone")
NAMES = (
    b"a", b"b", b"foo", b"bar", b"foobar", b"foo.py", b"UP.py", b"up.ts", b"tmp-1", b"tmp-x", b".h", b"na\xc3\xafve.py",
    b"na\xefve.py", b"naive.py", b"x y", b"x ", b"Icon", b"Icon\r", b"[a]", b"a-b", b"a]b", b"#h", b"!n", b"a\\b", b"*",
    b"a\tb", b"\xff", b"a^b", b"~$.tmp",
)  # fmt: skip
ATOMS = (
    b"*", b"*", b"*", b"**", b"**/", b"/**", b"/", b"/", b"?", b"\\", b"[", b"]", b"!", b"^", b"-", b" ", b".", b".py",
    b".ts", b"a", b"b", b"foo", b"bar", b"src", b"tmp-", b"Icon", b"na", b"ve", b"\xc3\xaf", b"\r", b"\\*", b"\\ ",
    b"[ab]", b"[!a]", b"[^a-c]", b"[a-z]", b"[]a]", b"[]-a]", b"[a-]", b"[\\]]", b"[a\\-z]", b"[[:digit:]]",
    b"[[:upper:]]", b"[![:alnum:]]", b"[[:space:][:punct:]]", b"[[:alpha:]-z]", b"[[:nope:]]", b"[[:alpha]", b"[[a:]",
    b"[\xc3\xaf]", b"\x80", b"[\x80-\xff]",
    b"~", b"$", b"(", b"|", b"{", b"+", b"\t", b"\x0c", b"\xe2\x80\xa8", b"\\A", b"\\u", b"[A]", b"[!A]", b"[!b]",
    b"[A-U]", b"[^A-C]", b"[[:lower:]]", b"[![:upper:]]", b"[!-Z]",
)  # fmt: skip
WHOLE = (
    b"*", b"!*/", b"!*.py", b"!*.ts", b"**/", b"!**/", b"src/**/", b"/*", b"!/src", b"!/src/", b"/src/*", b"foo/",
    b"!foo/", b"foo/bar", b"/foo/**", b"foo/**/bar", b"**/bar", b"a/**", b"", b"#h", b"\\#h", b"!n", b"\\!n",
    b"na?ve.py", b"[[:upper:]]*.py", b"tmp-[[:digit:]]", b"Icon\r",
   b"x\\ ", b"x ", b"!", b"/", b"//", b"!/", b"***/a", b"**a/b",
    b"f**/bar", b"*.py\0b", b"lib/**/*.py", b"!.gitignore", b"*/", b"*/*", b"!src/a/b/foo", b"components/", b"\xff",
)  # fmt: skip


def pattern(draw: random.Random) -> bytes:
    """Return a line of an ignore file: a typical one, a random one, or a file's path with some parts replaced."""
    kind = draw.random()
    if kind < 0.35:
        return draw.choice(WHOLE)
    if kind < 0.7:
        made = b"".join(draw.choices(ATOMS, k=draw.randint(1, 5)))
    else:
        made = draw.choice(DIRECTORIES) + b"/" + draw.choice(NAMES)
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(len(made))
            made = made[:at] + draw.choice(ATOMS) + made[at + draw.randint(0, 3) :]
    return draw.choice((b"", b"", b"", b"!", b"/")) + made + draw.choice((b"", b"", b"", b"/", b" ", b"\r"))


def ignore_file(draw: random.Random) -> bytes:
    lines = [pattern(draw).replace(b"\n", b"") for _ in range(draw.randint(1, 5))]
    ending = draw.choice((b"\n", b"\n", b"\n", b"\r\n"))
    return draw.choice((b"", b"", b"", b"\xef\xbb\xbf")) + ending.join(lines) + draw.choice((b"", ending))


def git(*arguments: str | bytes | Path, at: Path) -> bytes:
    return subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True).stdout


def not_ignored_by_git(root: Path, repositories: Sequence[str]) -> set[bytes]:
    """Return the files that git does not ignore. In the nested `repositories`, only their own ignore files apply."""
    listed = set(git("ls-files", "-z", "--others", "--exclude-standard", at=root).split(b"\0")) - {b""}
    for inner in repositories:
        name = os.fsencode(inner) + b"/"
        if name in listed:
            listed.remove(name)
            listed |= {name + path for path in not_ignored_by_git(root / inner, ())}
    return listed


def not_ignored_by_us(root: Path) -> set[bytes]:
    """Return the files that a scan with the ignore rules of the index finds."""
    ignore_files = IgnoreFiles(root)
    found: set[bytes] = set()
    todo = [""]
    while todo:
        directory = todo.pop()
        for entry in os.scandir(root / directory):
            path = f"{directory}{entry.name}"
            if entry.name == ".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                path += "/"
                ignore_files.enter(path)
            decision = ignore_files.decide(path)
            if decision is None or not decision.ignores:
                if path.endswith("/"):
                    todo.append(path)
                else:
                    found.add(os.fsencode(path))
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Create a repository with files, and with two nested repositories."""
    base = tmp_path_factory.mktemp("ignore")
    root = base / "ws"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(base / "home"))
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        directories = [root / os.fsdecode(each) for each in (b"", *DIRECTORIES, b"src/inner", b"foo/clone/deep")]
        for at in directories:
            at.mkdir(parents=True, exist_ok=True)
        for number, at in enumerate(directories):
            for name in NAMES:
                # Each directory gets files with half of the names, so that the same name is a file in one directory and
                # a directory in another.
                if (number + len(name)) % 2 and not (at / os.fsdecode(name)).exists():
                    (at / os.fsdecode(name)).write_bytes(b"x")
        for repository in REPOSITORIES:
            git("init", "-q", at=root / repository)
        yield root


def ignore_files_of(root: Path) -> list[Path]:
    places = ("", "src", "src/a", "foo", "src/inner", "foo/clone", "foo/clone/deep")
    excludes = [root / at / ".git" / "info" / "exclude" for at in ("", "src/inner")]
    return [
        *(root / at / ".gitignore" for at in places),
        *excludes,
        root.parent / "home" / ".config" / "git" / "ignore",
    ]


@pytest.mark.parametrize("ignore_case", ["false", "true"])
def test_random_ignore_files_decide_as_git_does(tree: Path, ignore_case: str) -> None:
    for repository in REPOSITORIES:
        git("config", "core.ignorecase", ignore_case, at=tree / repository)
    places = ignore_files_of(tree)
    for seed in range(SEEDS):
        draw = random.Random(seed)
        for file in places:
            file.unlink(missing_ok=True)
        written = {file: ignore_file(draw) for file in draw.sample(places, IGNORE_FILES_PER_SEED)}
        written[places[0]] = ignore_file(draw)
        for file, content in written.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        ours, gits = not_ignored_by_us(tree), not_ignored_by_git(tree, REPOSITORIES[1:])
        shown = {str(file.relative_to(tree.parent)): content for file, content in written.items()}
        assert ours == gits, f"seed {seed}: {shown}; only ours: {ours - gits}; only git's: {gits - ours}"


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a repository for a user without git settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "ws"
    for name in ("home/names", "home/.config/git/ignore", "ws/src/a.py", "ws/lib/b.py", "ws/c.ts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text({"names": "*.ts\n/src/\n", "ignore": "lib/\n"}.get(Path(name).name, "x"))
    git("init", "-q", at=root)
    return root


def test_a_folder_opened_through_a_link_has_the_rules_of_its_repository(plain: Path) -> None:
    (plain / ".gitignore").write_text("/src/gen.py\nb.*\n/link/\n")
    for name in ("gen.py", "b.py"):
        (plain / "src" / name).write_text("x")
    link = plain.parent / "link"
    link.symlink_to(plain / "src", target_is_directory=True)
    assert not_ignored_by_us(link) == not_ignored_by_git(link, ()) == {b"a.py"}
    # A link in a repository to a folder outside of it: the repository's rules do not apply.
    inside = plain / "lib" / "out"
    inside.symlink_to(plain.parent / "home", target_is_directory=True)
    (plain.parent / "home" / "b.py").write_text("x")
    assert b"b.py" in not_ignored_by_us(inside)


@pytest.mark.parametrize("value", ["true", "yes", "On", "1", "-1", "false", "no", "off", "0", ""])
def test_ignorecase_in_each_spelling(plain: Path, value: str) -> None:
    git("config", "core.ignorecase", value, at=plain)
    (plain / ".gitignore").write_text("SRC/\n")
    assert not_ignored_by_us(plain) == not_ignored_by_git(plain, ())


@pytest.mark.parametrize("named", ["~/names", ""])
@pytest.mark.parametrize("where", ["repository", "worktree", "environment", "gitdir", "gitdir/i", "other gitdir"])
def test_the_users_ignore_file_is_named_in_each_place(
    plain: Path, monkeypatch: pytest.MonkeyPatch, where: str, named: str
) -> None:
    home = plain.parent / "home"
    if where == "repository":
        git("config", "core.excludesFile", named, at=plain)
    elif where == "worktree":
        git("config", "extensions.worktreeConfig", "true", at=plain)
        git("config", "--worktree", "core.excludesFile", named, at=plain)
    elif where == "environment":
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.excludesFile")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", named)
    else:
        pattern = {"gitdir": f"gitdir:{plain}/", "gitdir/i": "gitdir/i:WS/"}.get(where, "gitdir:~/elsewhere/")
        (home / ".gitconfig").write_text(f'[includeIf "{pattern}"]\n\tpath = ~/included\n')
        (home / "included").write_text(f"[core]\n\texcludesFile = {named}\n")
    assert not_ignored_by_us(plain) == not_ignored_by_git(plain, ())


@pytest.mark.parametrize("ignore_case", ["false", "true"])
@pytest.mark.parametrize(
    "line",
    ["[!_m]*.py", "[A]pp.py", "[a]pp.py", "[A-Z]*.py", "[[:upper:]]*.py", "[^A]*.py", r"\App.py", r"\app.py", "APP.py"],
)
def test_brackets_and_escapes_if_case_is_ignored(plain: Path, line: str, ignore_case: str) -> None:
    for name in ("main.py", "_gen.py", "App.py", "Main.py"):
        (plain / name).write_text("x")
    git("config", "core.ignorecase", ignore_case, at=plain)
    (plain / ".gitignore").write_text(f"{line}\n")
    assert not_ignored_by_us(plain) == not_ignored_by_git(plain, ())
