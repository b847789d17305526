"""Make and check a release: its version, its notes from the changelog, and its assets with their hashes.

The workflow `release.yml` runs these commands. They need only the standard library.

    python tools/release.py version                 print the version
    python tools/release.py bump 0.2.0              set the version, and add its heading to the changelog
    python tools/release.py check [--tag v0.2.0]    fail unless all files have the same version; with --tag, the tag and
                                                    the changelog must have it too
    python tools/release.py notes                   print the changelog's section for the version
    python tools/release.py contents DIST           fail unless the wheel and the sdist in DIST are complete
    python tools/release.py assets DIST OUT         copy DIST and the model's parts to OUT, and add SHA256SUMS

A command that fails prints the reason and exits with status 1.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
MODEL = Path("policy", "model")
PACKAGES = ("indexer", "lsp_server", "policy")
LARGEST = 100_000_000
"""The size limit of PyPI for one file, in bytes."""

UNRELEASED = "## Unreleased"
_NUMBER = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"
_LOCK = "editors/vscode/package-lock.json"
# For each place with the version: the file, and a pattern that matches the place. The groups of the pattern are the
# text before the version and the text after it.
_PLACES: tuple[tuple[str, str], ...] = (
    ("pyproject.toml", rf'(?m)^(version = "){_NUMBER}(")$'),
    ("editors/vscode/package.json", rf'(?m)^(  "version": "){_NUMBER}(",)$'),
    (_LOCK, rf'\A(\{{\n  "name": "repoformer-lsp",\n  "version": "){_NUMBER}(")'),
    (_LOCK, rf'(\n    "": \{{\n      "name": "repoformer-lsp",\n      "version": "){_NUMBER}(")'),
    ("editors/emacs/repoformer.el", rf"(?m)^(;; Version: ){_NUMBER}()$"),
)


class ReleaseError(Exception):
    """A problem that prevents the release. The message says what is wrong and, unless it is obvious, what to do."""


def versions(root: Path = ROOT) -> list[tuple[str, str]]:
    """Return (file, version) for each place with the version. The first place is in `pyproject.toml`.

    Raises `ReleaseError` if a pattern does not match its file exactly once.
    """
    found = []
    for name, pattern in _PLACES:
        matches = list(re.finditer(pattern, (root / name).read_text("utf-8")))
        if len(matches) != 1:
            raise ReleaseError(f"{name} has {len(matches)} versions of the form {pattern}, expected one")
        (match,) = matches
        found.append((name, match.group(0)[len(match.group(1)) : len(match.group(0)) - len(match.group(2))]))
    return found


def version(root: Path = ROOT) -> str:
    """Return the version in `pyproject.toml`, which the other files must have too."""
    return versions(root)[0][1]


def bump(new: str, root: Path = ROOT, today: datetime.date | None = None) -> None:
    """Write the version `new` to all files. In the changelog, add a heading with `new` above the unreleased changes.

    Raises `ReleaseError` if `new` is not a version, or if there are no unreleased changes.
    """
    if not re.fullmatch(_NUMBER, new):
        raise ReleaseError(f"{new} is not a version: expected MAJOR.MINOR.PATCH, possibly with a1, b1 or rc1")
    if not notes("Unreleased", root):
        raise ReleaseError(f"CHANGELOG.md has nothing under {UNRELEASED!r}: add the changes that users notice")
    for name, pattern in _PLACES:
        file = root / name
        file.write_bytes(re.sub(pattern, rf"\g<1>{new}\g<2>", file.read_bytes().decode()).encode())
    log = root / "CHANGELOG.md"
    heading = f"{UNRELEASED}\n\n## {new} ({today or datetime.date.today():%Y-%m-%d})"
    log.write_bytes(log.read_text("utf-8").replace(UNRELEASED, heading, 1).encode())


def check(tag: str = "", root: Path = ROOT) -> None:
    """Raise `ReleaseError` unless all places have the same version.

    If `tag` is given, it must be `v` and this version, and the changelog must have a section for the version.
    """
    (_, source), *others = versions(root)
    different = [f"{name} says {other}" for name, other in others if other != source]
    if different:
        raise ReleaseError(
            f"pyproject.toml says {source}, but {' and '.join(different)}: run `python tools/release.py bump VERSION`"
        )
    if tag and tag != f"v{source}":
        raise ReleaseError(f"the tag is {tag}, and pyproject.toml says {source}: expected the tag v{source}")
    if tag and not notes(source, root):
        raise ReleaseError(f"CHANGELOG.md has no section {source!r}: run `python tools/release.py bump {source}`")


def notes(of: str, root: Path = ROOT) -> str:
    """Return the changelog's section for the version `of` without the heading, or "" if there is no such section."""
    sections = re.split(r"(?m)^## ", (root / "CHANGELOG.md").read_text("utf-8"))
    for section in sections[1:]:
        heading, _, body = section.partition("\n")
        if heading.split(" ")[0] == of:
            return body.strip()
    return ""


def contents(dist: Path, root: Path = ROOT) -> list[str]:
    """Check the wheel and the sdist in `dist`. Return a line with the name and the size of each.

    Raises `ReleaseError` if one of the two is missing, too large, or lacks a file of the packages. The wheel must also
    have no other files, and its parts of the model must be those of the model's manifest.
    """
    wheel, sdist = (_only(dist, pattern) for pattern in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        files = {member.filename: member.file_size for member in archive.infolist() if not member.is_dir()}
        hashes = {PurePosixPath(name).name: _sha256(archive.read(name)) for name in files if name.endswith(".gguf")}
    wanted = {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    information = f"repoformer_lsp-{version(root)}.dist-info/"
    held = {name for name in files if not name.startswith(information)}
    if held != wanted:
        raise ReleaseError(f"{wheel.name} differs from the repository in {', '.join(sorted(held ^ wanted))}")
    missing = {f"{information}licenses/{name}" for name in ("LICENSE", "NOTICE")} - files.keys()
    if missing:
        raise ReleaseError(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    if hashes != model_hashes(root):
        raise ReleaseError(
            f"the model in {wheel.name} is not the one that {(MODEL / 'manifest.json').as_posix()} names"
        )
    with tarfile.open(sdist) as tar:
        lacking = wanted - {member.name.partition("/")[2] for member in tar.getmembers()}
    if lacking:
        raise ReleaseError(f"{sdist.name} lacks {', '.join(sorted(lacking))}")
    for file in (wheel, sdist):
        if file.stat().st_size >= LARGEST:
            raise ReleaseError(f"{file.name} has {file.stat().st_size:,} bytes; PyPI takes {LARGEST:,}")
    return [f"{file.name}: {file.stat().st_size / 1e6:.1f} MB" for file in (wheel, sdist)]


def model_hashes(root: Path = ROOT) -> dict[str, str]:
    """Return the SHA-256 of each part of the built-in model, by file name, from the model's manifest."""
    manifest = json.loads((root / MODEL / "manifest.json").read_text("utf-8"))
    shipped = {path.name for path in (root / MODEL).glob("*.gguf")}
    return {name: of["sha256"] for name, of in manifest["files"].items() if name in shipped}


def assets(dist: Path, out: Path, root: Path = ROOT) -> list[Path]:
    """Copy the assets of the release to `out`, and return the copies.

    The assets are the files of `dist`, the model's parts, its model card and its manifest. `SHA256SUMS` is added.
    Raises `ReleaseError` if a part of the model is not that of the manifest.
    """
    out.mkdir(parents=True, exist_ok=True)
    named = {path.name: path for path in sorted(dist.iterdir()) if path.is_file() and not path.name.startswith(".")}
    named |= {path.name: path for path in sorted((root / MODEL).glob("*.gguf"))}
    named |= {f"repoformer-model-{name}": root / MODEL / name for name in ("README.md", "manifest.json")}
    copies = [Path(shutil.copyfile(path, out / name)) for name, path in named.items()]
    sums = {path.name: _sha256_of(path) for path in copies}
    if wrong := [name for name, digest in model_hashes(root).items() if sums.get(name) != digest]:
        raise ReleaseError(f"{', '.join(wrong)}: not the file that the model's manifest names")
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    (out / "SHA256SUMS").write_bytes("".join(lines).encode())  # bytes: Windows changes line ends of text
    return [*copies, out / "SHA256SUMS"]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{folder} has {len(found)} files {pattern}, expected one: empty it and build again")
    return found[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return 0, or print the reason to stderr and return 1 if the command fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    commands.add_parser("bump").add_argument("version")
    commands.add_parser("check").add_argument("--tag", default="")
    commands.add_parser("notes")
    commands.add_parser("contents").add_argument("dist", type=Path)
    copying = commands.add_parser("assets")
    copying.add_argument("dist", type=Path)
    copying.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        for line in _run(options):
            print(line)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> Iterable[str]:
    if options.command == "version":
        return [version()]
    if options.command == "bump":
        bump(options.version)
    if options.command == "check":
        check(options.tag)
    if options.command == "notes":
        return [notes(version()) or notes("Unreleased")]
    if options.command == "contents":
        return contents(options.dist)
    if options.command == "assets":
        return [str(path) for path in assets(options.dist, options.out)]
    return []


if __name__ == "__main__":
    sys.exit(main())
