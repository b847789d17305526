"""`tools/release.py`: the version, the notes, the content of the wheel, and the assets of a release."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import release

HOLD_THE_VERSION = ("pyproject.toml", "editors/vscode/package.json", "editors/vscode/package-lock.json",
                    "editors/emacs/repoformer.el")  # fmt: skip
LOG = "# Changelog\n\nWhat changes.\n\n## Unreleased\n\n### Added\n- One thing.\n\n## 0.0.1 (2020-01-02)\n\nFirst.\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with copies of the files that contain the version, and with the changelog `LOG`."""
    root = tmp_path / "tree"
    for name in HOLD_THE_VERSION:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release.ROOT / name, root / name)
    (root / "CHANGELOG.md").write_text(LOG, "utf-8")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the repository with small files for the parts of the model, and the folder of its wheel and sdist."""
    root, dist = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("dist")
    for name in (*release.PACKAGES, "editors"):
        ignore = shutil.ignore_patterns("*.gguf", "__pycache__", "node_modules")
        shutil.copytree(release.ROOT / name, root / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", ".gitignore"):
        shutil.copyfile(release.ROOT / name, root / name)
    files = {}
    for name in release.model_hashes():
        (root / release.MODEL / name).write_bytes(name.encode())
        files[name] = {"bytes": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()}
    assert files, "the built-in model has no parts"
    (root / release.MODEL / "manifest.json").write_text(json.dumps({"files": files}), "utf-8")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(dist)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root, dist


def test_every_file_says_the_same_version() -> None:
    release.check()


def test_a_bump_writes_every_file_and_dates_the_changes(tree: Path) -> None:
    release.bump("12.3.0rc1", tree, datetime.date(2030, 4, 5))
    assert [found for _, found in release.versions(tree)] == ["12.3.0rc1"] * 5
    release.check("v12.3.0rc1", tree)
    assert release.notes("12.3.0rc1", tree) == "### Added\n- One thing."
    assert release.notes("Unreleased", tree) == ""
    assert "## Unreleased\n\n## 12.3.0rc1 (2030-04-05)\n\n### Added" in (tree / "CHANGELOG.md").read_text("utf-8")
    for name in HOLD_THE_VERSION:
        before, after = ((root / name).read_text("utf-8").splitlines() for root in (release.ROOT, tree))
        changed = [line for old, line in zip(before, after, strict=True) if old != line]
        assert changed and all("12.3.0rc1" in line for line in changed), name


def test_a_bump_without_changes_is_refused(tree: Path) -> None:
    release.bump("2.0.0", tree)
    with pytest.raises(release.ReleaseError, match="nothing under '## Unreleased'"):
        release.bump("2.0.1", tree)


@pytest.mark.parametrize("word", ["2", "v2.0.0", "2.0.0-beta", ""])
def test_what_is_no_version_is_refused(tree: Path, word: str) -> None:
    with pytest.raises(release.ReleaseError, match="is not a version"):
        release.bump(word, tree)


@pytest.mark.parametrize("name", HOLD_THE_VERSION[1:])
def test_another_version_in_one_file_is_found(tree: Path, name: str) -> None:
    text = (tree / name).read_text("utf-8")
    (tree / name).write_text(text.replace(release.version(), "7.7.7", 1), "utf-8")
    with pytest.raises(release.ReleaseError, match=f"{name} says 7.7.7"):
        release.check(root=tree)


def test_a_file_without_a_version_is_found(tree: Path) -> None:
    (tree / HOLD_THE_VERSION[-1]).write_text(";;; repoformer.el\n", "utf-8")
    with pytest.raises(release.ReleaseError, match=r"repoformer\.el has 0 versions"):
        release.check(root=tree)


def test_a_tag_needs_its_version_and_its_notes(tree: Path) -> None:
    with pytest.raises(release.ReleaseError, match=r"the tag is v0\.0\.1"):
        release.check("v0.0.1", tree)
    with pytest.raises(release.ReleaseError, match="no section"):
        release.check(f"v{release.version()}", tree)


def test_the_wheel_and_the_sdist_hold_the_packages_and_the_model(built: tuple[Path, Path]) -> None:
    root, dist = built
    assert len(release.contents(dist, root)) == 2


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("indexer/queries/lua.scm", "", r"indexer/queries/lua\.scm"),
        ("policy/py.typed", "", r"policy/py\.typed"),
        ("", "tests/conftest.py", r"tests/conftest\.py"),
        ("LICENSE", "", "licenses/LICENSE"),
        ("-00002-of-", "", "differs"),
    ],
)
def test_a_wheel_that_lacks_or_adds_a_file_is_refused(
    built: tuple[Path, Path], tmp_path: Path, lost: str, added: str, message: str
) -> None:
    root, dist = built
    copy = Path(shutil.copytree(dist, tmp_path / "dist"))
    (wheel,) = copy.glob("*.whl")
    (original,) = dist.glob("*.whl")
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(wheel, "w") as sink:
        for member in source.namelist():
            if not lost or lost not in member:
                sink.writestr(member, source.read(member))
        if added:
            sink.writestr(added, "")
    with pytest.raises(release.ReleaseError, match=message):
        release.contents(copy, root)


def test_another_model_is_refused(built: tuple[Path, Path], tmp_path: Path) -> None:
    root, dist = built
    other = Path(shutil.copytree(root, tmp_path / "repository"))
    part = next((other / release.MODEL).glob("*.gguf"))
    part.write_bytes(b"another model")
    with pytest.raises(release.ReleaseError, match=part.name):
        release.assets(dist, tmp_path / "out", other)
    manifest = json.loads((other / release.MODEL / "manifest.json").read_text("utf-8"))
    manifest["files"][part.name]["sha256"] = hashlib.sha256(b"another model").hexdigest()
    (other / release.MODEL / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(release.ReleaseError, match=r"the model in .* is not the one"):
        release.contents(dist, other)


def test_a_file_that_the_package_index_refuses(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, dist = built
    (wheel,) = dist.glob("*.whl")
    monkeypatch.setattr(release, "LARGEST", wheel.stat().st_size)
    with pytest.raises(release.ReleaseError, match="PyPI takes"):
        release.contents(dist, root)


def test_a_folder_with_two_builds_is_refused(built: tuple[Path, Path], tmp_path: Path) -> None:
    root, dist = built
    copy = Path(shutil.copytree(dist, tmp_path / "dist"))
    (wheel,) = copy.glob("*.whl")
    shutil.copyfile(wheel, copy / "repoformer_lsp-9.9.9-py3-none-any.whl")
    with pytest.raises(release.ReleaseError, match="2 files"):
        release.contents(copy, root)


def test_assets_come_with_their_hashes(built: tuple[Path, Path], tmp_path: Path) -> None:
    root, dist = built
    release.assets(dist, tmp_path / "out", root)
    lines = (tmp_path / "out" / "SHA256SUMS").read_text("utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").iterdir()}
    del found["SHA256SUMS"]
    assert listed == found
    assert set(release.model_hashes(root)) < set(found)
    assert {path.name for path in dist.iterdir() if path.suffix in {".whl", ".gz"}} < set(found)


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert release.main(["version"]) == 0
    assert capsys.readouterr().out.strip() == release.version()
    assert release.main(["contents", str(tmp_path)]) == 1
    assert "expected one" in capsys.readouterr().err
