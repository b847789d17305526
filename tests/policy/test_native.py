"""The choice of a llama.cpp library, the checks of it, and the messages for a library that cannot be used."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.engine import cpu, libraries
from policy.engine.libraries import ENVIRONMENT, PACKAGES, Candidate, candidates
from policy.engine.settings import EngineSettings
from policy.engine.worker import capi, native
from policy.engine.worker.batching import Row
from policy.engine.worker.llama import Llama, build_info
from policy.engine.worker.native import Native
from policy.errors import EngineFailed

INSTALLED = {package.name: file for package in PACKAGES if (file := package.file())}
each_library = pytest.mark.parametrize("library", INSTALLED.values(), ids=INSTALLED.keys())


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the environment variable that names a library."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def candidate(path: Path) -> Candidate:
    return Candidate(path, "a test", named=True)


# -- the choice of a library -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unnamed")
def test_a_compiled_library_comes_before_a_prebuilt_one() -> None:
    assert [found.path for found in candidates()] == list(INSTALLED.values())
    assert list(INSTALLED) == [package.name for package in PACKAGES if package.name in INSTALLED]
    assert not PACKAGES[0].prebuilt
    assert all(package.prebuilt for package in PACKAGES[1:])


def test_the_setting_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set", "exported"):
        (tmp_path / name).touch()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "exported"))
    assert [(found.path, found.named) for found in candidates()] == [(tmp_path / "exported", True)]
    assert [found.path for found in candidates(str(tmp_path / "set"))] == [tmp_path / "set"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert [found.path for found in candidates("~/set")] == [tmp_path / "set"]


def test_a_library_that_is_named_but_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineFailed, match=r"`llamaLibrary` names .*absent, which is not a file"):
        candidates(str(tmp_path / "absent"))
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(EngineFailed, match=f"{ENVIRONMENT} names .*, which is not a file"):
        candidates()


@pytest.mark.usefixtures("unnamed")
def test_an_environment_that_is_half_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package whose files are missing, and the command that restores them."""
    lost = tuple(replace(package, files=("lost",)) for package in PACKAGES)
    monkeypatch.setattr(libraries, "PACKAGES", lost)
    name = next(iter(INSTALLED))
    with pytest.raises(EngineFailed, match=f"without its library. .*`pip install --force-reinstall --no-deps {name}=="):
        candidates()


@pytest.mark.usefixtures("unnamed")
def test_a_system_without_any_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "PACKAGES", ())
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineFailed, match=rf"\({sys.platform} on riscv64\).*'\.\[native\]'` in a clone"):
        candidates()


@pytest.mark.usefixtures("unnamed")
def test_one_that_cannot_be_used_is_passed_over_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF but cut off")
    usable = Candidate(next(iter(INSTALLED.values())), "a test")
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setattr(native, "candidates", lambda _setting: [replace(usable, path=broken), usable])
    found = native.load()
    assert found.candidate == usable
    assert len(found.skipped) == 1
    assert str(broken) in found.skipped[0]


# -- the checks of a library -------------------------------------------------------------------------------------------


@each_library
def test_each_installed_library_proves_its_layout(library: Path) -> None:
    found = Native(candidate(library))
    assert found.version.startswith(found.layout.version)
    assert not list(found._disagreements(ctypes.CDLL(str(library))))


@pytest.mark.skipif(sys.platform != "linux", reason="needs libraries in the ELF format")
@pytest.mark.parametrize(("change", "expected"), [("cut", "is cut off"), ("machine", "is not a library for linux on")])
def test_a_damaged_or_foreign_library_is_refused_before_it_is_loaded(
    tmp_path: Path, change: str, expected: str
) -> None:
    """Without this check, the dynamic loader would end the process by SIGBUS, or report that the file is missing."""
    data = bytearray(next(iter(INSTALLED.values())).read_bytes())
    if change == "cut":
        del data[len(data) // 2 :]
    else:
        data[18] ^= 0x80
    (tmp_path / "libllama.so").write_bytes(data)
    with pytest.raises(EngineFailed, match=expected):
        Native(candidate(tmp_path / "libllama.so"))


@pytest.mark.parametrize("name", ["~no-such-user/libllama.so", "x" * 5_000, "a/" * 3_000])
def test_a_name_that_no_file_can_have_is_reported(name: str) -> None:
    with pytest.raises(EngineFailed, match=r"`llamaLibrary` names .*, which is not a file"):
        candidates(name)


@each_library
@pytest.mark.parametrize("build", [layout.build for layout in capi.LAYOUTS])
def test_the_layout_of_another_build_is_noticed(library: Path, build: int) -> None:
    found = Native(candidate(library))
    layout = next(layout for layout in capi.LAYOUTS if layout.build == build)
    handle = ctypes.CDLL(str(library))
    right = found.layout is layout
    found.layout = layout
    found._bind(handle)
    complaints = list(found._disagreements(handle))
    assert bool(complaints) is not right, complaints


@each_library
def test_a_field_that_moved_is_noticed_by_its_default(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fields of a struct are exchanged. The check finds this by the default values that the library writes."""
    found = Native(candidate(library))
    fields = list(found.layout.model_params._fields_)
    at = [name for name, _type in fields].index("use_extra_bufts")
    fields[at - 1], fields[at] = fields[at], fields[at - 1]
    moved = type("moved", (ctypes.Structure,), {"_fields_": fields})
    found.layout = replace(found.layout, model_params=moved)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert any("use_extra_bufts" in complaint for complaint in found._disagreements(ctypes.CDLL(str(library))))


def compiled(folder: Path, source: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("needs a C compiler to make a library")
    (folder / "made.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "made.so", folder / "made.c"], check=True)
    return folder / "made.so"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("int unrelated;", "is not a llama.cpp library, or is older"),
        (
            'const char *llama_version(void) { return "0.9.1"; }',
            r"is llama\.cpp 0\.9\.1, but this release supports 0\.5\.0",
        ),
        ('const char *llama_version(void) { return "0.6.0-dev"; }', "has no `llama_backend_init`"),
    ],
)
def test_a_library_of_another_build(tmp_path: Path, source: str, complaint: str) -> None:
    library = compiled(tmp_path, source)
    with pytest.raises(EngineFailed, match=complaint):
        native.load(str(library))


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("not found\n")
    with pytest.raises(EngineFailed, match=r"libllama\.so \(from the setting `llamaLibrary`\) cannot be loaded"):
        build_info(str(tmp_path / "libllama.so"))


# -- requirements of the machine ---------------------------------------------------------------------------------------

OLD = """processor\t: 0
model name\t: Intel(R) Core(TM) i7-3770 CPU @ 3.40GHz
flags\t\t: fpu vme sse sse2 ssse3 sse4_1 sse4_2 popcnt aes avx f16c rdrand
bugs\t\t:
"""


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        (OLD, {"avx", "f16c"}),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", {"asimd", "asimddp"}),
        ("processor\t: 0\nflags\t\t:\n", set()),
    ],
)
def test_what_the_system_says_of_its_cpu(cpuinfo: str, found: set[str]) -> None:
    assert found <= (cpu.instructions_of(cpuinfo) or set())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize(
    ("flags", "system", "ignored"),
    [
        ("avx2 avx512f avx512_vnni", "CPU : AVX2 = 1 | REPACK = 1 |", True),
        ("avx2 avx512f avx512_vnni", "CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 |", False),
        ("avx2 avx512f", "CPU : AVX2 = 1 | REPACK = 1 |", False),  # without VNNI, it was not measured
        ("", "CPU : AVX2 = 1 |", False),
    ],
)
def test_whether_a_library_ignores_avx512(
    flags: str, system: str, ignored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n" if flags else "")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    assert libraries.ignores_avx512(system) == ignored


@pytest.mark.parametrize("cpuinfo", ["", "processor\t: 0\nhart\t: 1\nisa\t: rv64imafdc\n"])
def test_a_system_that_does_not_say(cpuinfo: str) -> None:
    assert cpu.instructions_of(cpuinfo) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_the_message_for_a_cpu_without_avx2_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is checked before the library is opened: the file is absent, and still the error is about the CPU."""
    (tmp_path / "cpuinfo").write_text(OLD)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    old = Candidate(tmp_path / "absent", "a test", needs=libraries._AVX2)
    with pytest.raises(EngineFailed, match=r"this CPU has no AVX2, BMI2, FMA.*'\.\[native\]'` in a clone"):
        Native(old)


def test_prebuilt_libraries_need_avx2_on_x86_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for machine, needed in (("x86_64", True), ("AMD64", True), ("aarch64", False), ("arm64", False)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        for found in candidates():
            assert bool(found.needs) is (needed and not found.origin.startswith("llama-cpp-python"))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("/lib/libc.so.6: version `GLIBC_2.38' not found (required by a.so)", "needs GLIBC 2.38"),
        ("/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by a.so)", "needs GLIBCXX 3.4.32"),
        ("libgomp.so.1: cannot open shared object file: No such file or directory", "apt install libgomp1"),
        ("a.so: wrong ELF class: ELFCLASS32", "is not a library for"),
        ("dlopen(a.so): tried: 'a.so' (mach-o file, but is an incompatible architecture)", "is not a library for"),
        ("[WinError 193] %1 is not a valid Win32 application", "is not a library for"),
        ("Error loading shared library ld-linux-x86-64.so.2: No such file (needed by a.so)", "built for glibc"),
        ("libstdc++.so.6: version `CXXABI_1.3.15' not found (required by a.so)", "needs CXXABI 1.3.15"),
        ("libstdc++.so.6: cannot open shared object file: No such file or directory", "apt install libstdc++6"),
        ("libcudart.so.12: cannot open shared object file: No such file or directory", "needs libcudart.so.12, which"),
        ("Error relocating a.so: __memcpy_chk: symbol not found", "does not match this system's libraries"),
        ("something new", "something new"),
    ],
)
def test_the_loaders_words_come_with_advice(reason: str, expected: str) -> None:
    assert expected in native.advice(reason)


# -- the library's functions -------------------------------------------------------------------------------------------


@each_library
@pytest.mark.parametrize("extra_buffers", [True, False])
def test_a_model_runs_with_each_library(library: Path, model: Path, extra_buffers: bool) -> None:
    settings = EngineSettings(context_size=512, threads=2, library=str(library), extra_buffers=extra_buffers)
    llama = Llama(model, settings)
    tokens = llama.encode("def add(a, b):\n    return a +")
    rows = [Row(token, at, 0, at == len(tokens) - 1) for at, token in enumerate(tokens)]
    assert llama.decode(rows) == "ok"
    assert llama.piece(int(llama.logits().argmax())) == b" b"
    assert llama.end_of(0) == len(tokens)
    llama.abort()
    assert llama.decode([Row(tokens[0], len(tokens), 0, True)]) == "aborted"
    llama.abort(False)
    assert llama.decode([Row(tokens[0], len(tokens), 0, True)]) == "ok"
    assert llama.truncate(0, 3)
    assert llama.end_of(0) == 3
    llama.close()


@each_library
def test_a_copied_sequence_says_the_same(library: Path, model: Path) -> None:
    settings = EngineSettings(context_size=512, threads=2, library=str(library), sequences=2)
    llama = Llama(model, settings)
    tokens = llama.encode("import os\nimport sys\nimport ")
    assert llama.decode([Row(token, at, 0, True) for at, token in enumerate(tokens[:-2])]) == "ok"
    assert llama.copy(0, 1, len(tokens) - 2) == len(tokens) - 2
    ends = []
    for seq in (0, 1):
        assert (
            llama.decode([Row(token, len(tokens) - 2 + at, seq, True) for at, token in enumerate(tokens[-2:])]) == "ok"
        )
        ends.append(llama.logits().copy())
    assert np.array_equal(*ends)
    llama.close()


@each_library
def test_pieces_are_those_of_each_token(library: Path, model: Path) -> None:
    llama = Llama(model, EngineSettings(context_size=512, threads=2, library=str(library)))
    pieces = llama.pieces()
    assert len(pieces) == llama.n_vocab
    tokens = llama.encode("naïve = 'ünïcode'\n\tif x:")
    assert b"".join(pieces[token] for token in tokens).decode() == "naïve = 'ünïcode'\n\tif x:"
    llama.close()


@each_library
def test_it_says_where_it_comes_from(library: Path) -> None:
    info = build_info(str(library))
    assert info["path"] == str(library)
    assert info["origin"] == "the setting `llamaLibrary`"
    assert info["version"].startswith(("0.5.0", "0.6.0"))
    assert "CPU" in info["system"]
