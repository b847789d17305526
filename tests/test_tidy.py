"""The invariants of ARCHITECTURE.md that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("indexer", "policy", "lsp_server")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Return the dotted name by which `path` is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}

# Metaphors, translated idioms and vague words that the project avoids in prose and in identifiers. `banned_phrases`
# treats underscores as spaces, so it also finds these phrases in identifiers.
BANNED = (
    "afresh", "anew", "as a rule", "at leisure", "be had", "be it", "begins again", "behind the cursor",
    "beside it", "by and large", "came along", "came out of", "come along", "comes along", "comes out of",
    "ever other", "everybody", "for people", "foretell", "foretells", "gave way", "get in the way",
    "gets in the way", "give way", "gives way", "go on", "goes its way", "goes on", "going on", "gone on",
    "had of it", "hang on", "hangs on", "has to say", "in its place", "in one go", "in sight", "is told", "lest",
    "made up", "makes of it", "nobody", "now and then", "of its own accord", "of late", "on its way", "on the way",
    "once and for all", "out of a", "puts out the light", "say of itself", "says of itself", "seldom",
    "side by side", "so many", "somebody", "stand beside", "stand nowhere", "stand there", "stands", "take it back",
    "taken back", "takes back", "that are there", "that is there", "the door", "the house", "the light",
    "the way back", "thrown out", "to speak of", "went on", "what is there", "what it is worth", "what stands",
    "whatever it", "whoever", "worth its time",
)  # fmt: skip
# These phrases are searched for in the files and folders of `PLAIN`. In a folder, only files with a suffix of
# `PROSE_SUFFIXES` are searched, and no files in a folder named in `NOT_PROSE`.
PROSE_SUFFIXES = {".py", ".md", ".ts", ".lua", ".el", ".sh"}
NOT_PROSE = {"node_modules", "sources", "snippets", "corpus", "vendor"}
PLAIN = (
    "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "benchmarks", "docs", "editors",
    "examples/demo.py", "examples/workspace/README.md", "fuzz", "indexer", "lsp_server", "policy", "tests", "tools",
)  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    """Return the project's modules that `path` imports at any place, even in functions and under `TYPE_CHECKING`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & MODULES.keys() - {module_name(path)}


def imports_of(module: str) -> set[str]:
    """Return the project's modules that Python loads when it imports `module`, with the packages that contain them."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting |= imported_modules(MODULES[module]) | {module.rpartition(".")[0]} & MODULES.keys()
    return found


def importers(*modules: str) -> set[str]:
    return {name(path) for path in SOURCES if any(found.split(".")[0] in modules for found in imports(path))}


def test_one_direction() -> None:
    """Imports have one direction: `lsp_server → policy → indexer`."""
    for path in SOURCES:
        rank = PACKAGES.index(path.relative_to(ROOT).parts[0])
        for module in imports(path):
            if (top := module.split(".")[0]) in PACKAGES:
                assert PACKAGES.index(top) <= rank, f"{name(path)} imports {module}"


def test_no_circles() -> None:
    """No module imports itself through other modules, not even under `TYPE_CHECKING`."""
    sorter = TopologicalSorter({module: imported_modules(path) for module, path in MODULES.items()})
    sorter.prepare()  # raises `CycleError`, which names the circle


def test_the_worker_process_loads_nothing_of_the_server_side() -> None:
    """The worker process imports no module that only the server needs, such as the client of the engine."""
    server_side = {f"policy.engine.{module}" for module in ("client", "connect", "embedding", "process", "supervisor")}
    assert server_side <= MODULES.keys()
    for module in MODULES:
        if module.startswith("policy.engine.worker"):
            assert imports_of(module).isdisjoint(server_side), module


def test_the_protocol_stays_in_the_server() -> None:
    assert {path.split("/")[0] for path in importers("pygls", "lsprotocol")} == {"lsp_server"}


def test_packages_with_llama_cpp_are_not_imported() -> None:
    """The worker loads the llama.cpp libraries in these packages by path, and never runs the packages' Python code."""
    assert importers("llama_cpp", "xllamacpp", "llama_cpp_py_sync") == set()
    # The commands for training and evaluation call llama.cpp in their own process.
    own = ("policy/engine/worker/", "policy/training/", "policy/evaluation/")
    users = {
        name(path)
        for path in SOURCES
        if {"policy.engine.worker.llama", "policy.engine.worker.native"} & {*imports(path)}
    }
    assert all(path.startswith(own) for path in users), users


def test_torch_stays_in_the_extras() -> None:
    extras = ("policy/training/", "policy/evaluation/")
    assert all(path.startswith(extras) for path in importers("torch", "transformers"))


def test_most_tests_need_no_torch() -> None:
    """CI runs most tests without the `train` extra, so pytest must be able to import them without torch."""
    program = dedent("""
        import sys

        import pytest

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "transformers"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        options = ["--collect-only", "-qq", "--no-cov", "-p", "no:cacheprovider", "--assert=plain"]
        sys.exit(pytest.main([*options, "--ignore=tests/e2e", "--ignore=tests/training", "tests"]))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    "module", ["lsp_server.server", "lsp_server.cli", "policy.completion.service", "indexer.workspace"]
)
def test_serving_loads_nothing_heavy(module: str) -> None:
    """The server's process never loads llama.cpp, nor a package for training."""
    program = (
        f"import sys, {module}; "
        "names = {*sys.modules, *(name.split('.')[0] for name in sys.modules)}; "
        "print(sorted(names & {'policy.engine.worker.native', 'torch', 'transformers', 'gguf'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_module_says_its_idea() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree), f"{name(path)} has no docstring"


# The docstring of a function says what the function does, so it begins with a verb. The docstring of a property may
# begin with a noun.
NO_VERB = re.compile(r"(?:Whether|What|Where|Those|How many)\b")


def docstrings_without_verb(source: str) -> list[str]:
    """Return the functions, except properties, whose docstring begins with one of the words of `NO_VERB`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
        if not is_property and NO_VERB.match(ast.get_docstring(node) or ""):
            found.append(f"line {node.lineno}: {node.name}")
    return found


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    found = {name(path): lines for path in SOURCES if (lines := docstrings_without_verb(path.read_text("utf-8")))}
    assert not found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f():\n    """Whether it is."""', ["line 1: f"]),
        ('class C:\n    async def f(self):\n        """\n        How many there are."""', ["line 2: f"]),
        ('class C:\n    @cached_property\n    def f(self):\n        """What it is."""', []),
        ('def f():\n    """Return whether it is. What else?"""', []),
        ("def f(): ...", []),
    ],
)
def test_docstrings_without_verb_are_found(source: str, found: list[str]) -> None:
    assert docstrings_without_verb(source) == found


def plain_files() -> list[Path]:
    """Return the files of `PLAIN` with prose, except data, installed packages, and this file, which has the list."""
    found: list[Path] = []
    for path in (ROOT / name for name in PLAIN):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in PROSE_SUFFIXES]
        assert files, f"{name(path)} has no files"
        found += [file for file in files if NOT_PROSE.isdisjoint(file.parts) and file != Path(__file__).resolve()]
    return sorted(found)


def banned_phrases(text: str) -> list[str]:
    """Return the banned phrases in `text`, each with its line number."""
    words = re.compile(r"\b(?:" + "|".join(phrase.replace(" ", r"[\s#*]+") for phrase in BANNED) + r")\b", re.I)
    spaced = text.replace("_", " ")
    return [f"line {spaced.count(chr(10), 0, found.start()) + 1}: {found[0]!r}" for found in words.finditer(spaced)]


def test_prose_has_no_banned_phrases() -> None:
    found = {name(path): phrases for path in plain_files() if (phrases := banned_phrases(path.read_text("utf-8")))}
    assert not found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# It begins\n# anew.", ["line 2: 'anew'"]),
        ("Others give\n    way here.", ["line 1: 'give\\n    way'"]),
        ("def test_what_is_there() -> None: ...", ["line 1: 'what is there'"]),
        ("Whoever", ["line 1: 'Whoever'"]),
        ("understands the lesson", []),
    ],
)
def test_banned_phrases_are_found(text: str, found: list[str]) -> None:
    assert banned_phrases(text) == found


def test_architecture_names_what_exists() -> None:
    """The first columns of the code map name, in backticks, each module or its folder, and nothing else."""
    package, missing, named = "", list[str](), set[str]()
    for line in (ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines():
        if heading := re.match(r"### `(\w+)`", line):
            package = heading.group(1)
        elif package and (row := re.match(r"\| (`[^|]+`) \|", line)):
            entries = re.findall(r"`([\w./]+)`", row.group(1))
            missing.extend(f"{package}/{entry}" for entry in entries if not (ROOT / package / entry).exists())
            named.update(f"{package}/{entry}" for entry in entries)
    assert not missing
    unnamed = {name(path) for path in SOURCES if path.name != "__init__.py"}
    unnamed = {path for path in unnamed if named.isdisjoint([path, *map(str, PurePosixPath(path).parents)])}
    assert not unnamed, "the code map of ARCHITECTURE.md does not list these modules"
