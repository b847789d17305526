"""The language of a file is found by the editor's language id, the file's name, or its first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.languages import language_of
from indexer.settings import IndexSettings
from indexer.workspace import WorkspaceIndex


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("bin/deploy", "#!/usr/bin/env python3\nx = 1\n", "python"),
        ("bin/backup", "#!/bin/sh\necho x\n", "bash"),
        ("run", "#! /usr/local/bin/python3.11 -u\n", "python"),
        ("run", "#!/usr/bin/env -S uv run --script\n", "python"),
        ("run", "#!/usr/bin/env -S LANG=C node --no-warnings\n", "javascript"),
        ("run", "#!/usr/bin/env bash\r\n", "bash"),
        ("run", "#!/usr/bin/Rscript\n", "r"),
        ("run", "#!/usr/bin/awk -f\n", ""),
        ("run", "#!/usr/bin/env -u FOO python\n", "python"),
        ("run", "#!/usr/bin/env --split-string=python3 -u\n", "python"),
        ("run", "#!/bin/busybox sh\n", "bash"),
        ("run", "#!C:/Python312/python.exe\n", "python"),
        ("run", "#!/usr/bin/env scala-cli\n", "scala"),
        ("run", "#!/usr/bin/env bats\n", "bash"),
        ("run", "#!/usr/bin/env ipython3\n", "python"),
        ("run", "\ufeff#!/usr/bin/env python\n", "python"),
        ("run", "#!/usr/bin/env fish\n", ""),
        (".zshenv", "", "bash"),
        ("PKGBUILD", "", "bash"),
        ("rules/defs.bzl", "", "python"),
        ("BUILD.bazel", "", "python"),
        ("network.hcl", "", "terraform"),
        ("matrix.tpp", "", "cpp"),
        ("LICENSE", "MIT License\n", ""),
        ("LICENSE", "#!\n", ""),
        ("notes.txt", "#!/bin/sh\n", ""),
        ("lib.rb", "#!/bin/sh\n", "ruby"),
        ("Dockerfile.dev", "", "dockerfile"),
        ("docker/Dockerfile-prod", "", "dockerfile"),
        ("dev.Dockerfile", "", "dockerfile"),
        ("dockerfile", "", "dockerfile"),
        ("Makefile.am", "", "makefile"),
        ("Jenkinsfile.release", "", "groovy"),
        ("Dockerfile.md", "", ""),
        ("Makefile.py", "", "python"),
        ("Dockerfiles", "", ""),
    ],
)
def test_language_of(path: str, text: str, language: str) -> None:
    found = language_of(path, text=text)
    assert (found.id if found else "") == language


@pytest.mark.parametrize(
    ("lsp_id", "language"),
    [
        ("python-ts", "python"),
        ("c++-ts", "cpp"),
        ("typescript-tsx", "tsx"),
        ("python.django", "python"),
        ("Bourne Again Shell (bash)", "bash"),
        ("clojurescript", "clojure"),
        ("opentofu", "terraform"),
        ("plsql", "sql"),
        ("starlark", "python"),
        ("jenkinsfile", "groovy"),
        ("go.mod", ""),
        ("fish", ""),
        ("plaintext", ""),
        ("", ""),
    ],
)
def test_the_language_ids_of_each_editor(lsp_id: str, language: str) -> None:
    found = language_of("", lsp_id)
    assert (found.id if found else "") == language


def test_scripts_without_an_extension_are_indexed(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "deploy").write_text("#!/usr/bin/env python3\ndef deploy(target):\n    return target\n")
    (root / "bin" / "backup").write_text("#!/bin/sh\nbackup() {\n  echo done\n}\n")
    (root / "Dockerfile.dev").write_text("FROM python\n")
    (root / "LICENSE").write_text("MIT License\n")
    (root / "task").write_text("def task(thing):\n    return thing\n")
    index = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
    index.start()

    def symbols() -> dict[str, tuple[str, ...]]:
        assert index.wait_idle(60)
        return {chunk.path: chunk.symbols for chunk in index.snapshot.all_chunks()}

    try:
        scripts = {"bin/deploy": ("deploy",), "bin/backup": ("backup",), "Dockerfile.dev": ()}
        assert symbols() == scripts
        # While a document is open, the editor's language id has precedence.
        index.set_buffer(root / "task", "def task(thing):\n    return thing\n", "python")
        assert symbols() == {**scripts, "task": ("task",)}
        index.set_buffer(root / "task", None)
        assert symbols() == scripts
        index.set_buffer(root / "new", "#!/usr/bin/ruby\ndef made\nend\n", "plaintext")
        assert symbols() == {**scripts, "new": ("made",)}
        index.set_buffer(root / "new", None)
        (root / "bin" / "deploy").write_text("not a script any more\n")
        index.touch([root / "bin" / "deploy"])
        assert symbols() == {path: names for path, names in scripts.items() if path != "bin/deploy"}
    finally:
        index.close()
