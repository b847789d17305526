"""List the languages: one row for each, with its name, files, comments and grammar.

A row names the file extensions, how to write a comment (prompts show retrieved code as comments), the language ids
(those of LSP, and those that Vim, Emacs, Helix and Sublime Text send), and the source of the grammar. A tree-sitter
query in `queries` says what a function, a class or an import looks like. Grammars load on first use, so a process loads
only the grammars of the languages it reads. Files of a language without a query are cut into the paper's line windows.
To add a language, follow the recipe in CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tree_sitter


@dataclass(frozen=True, slots=True)
class Language:
    """One row of the table.

    `comment` is the line comment prefix with its space ("# ", "// "). A language without line comments has the opening
    of a block comment instead, and its closing as `comment_end`. `grammar` is "module:function" of the package
    with the tree-sitter grammar, or "". `query` names one or more files in `queries/`, separated by spaces.
    """

    id: str
    extensions: tuple[str, ...]
    comment: str
    grammar: str = ""
    query: str = ""
    filenames: tuple[str, ...] = ()
    lsp_ids: tuple[str, ...] = ()
    comment_end: str = ""

    def commented(self, line: str) -> str:
        """Return a line as a comment."""
        return f"{self.comment}{line}{self.comment_end}"


_ROWS = (
    Language("python", (".py", ".pyi", ".pyw", ".bzl", ".smk"), "# ", "tree_sitter_python:language", "python",
             filenames=("SConstruct", "SConscript", "wscript", "Snakefile", "BUILD.bazel", "Tiltfile"),
             lsp_ids=("python3", "py", "snakemake", "bazel", "starlark", "bzl", "sage", "sagemath")),
    Language("javascript", (".js", ".jsx", ".mjs", ".cjs"), "// ", "tree_sitter_javascript:language",
             "ecmascript javascript",
             lsp_ids=("javascriptreact", "js", "jsx", "js2", "js3", "rjsx", "javascript (babel)")),
    Language("typescript", (".ts", ".mts", ".cts"), "// ", "tree_sitter_typescript:language_typescript",
             "ecmascript typescript", lsp_ids=("ts",)),
    Language("tsx", (".tsx",), "// ", "tree_sitter_typescript:language_tsx",
             "ecmascript typescript",
             lsp_ids=("typescriptreact", "typescript.tsx", "typescript-tsx")),
    Language("java", (".java",), "// ", "tree_sitter_java:language", "java"),
    Language("csharp", (".cs", ".csx"), "// ", "tree_sitter_c_sharp:language", "csharp",
             lsp_ids=("cs", "c-sharp", "c#")),
    Language("go", (".go",), "// ", "tree_sitter_go:language", "go",
             lsp_ids=("golang",)),
    Language("rust", (".rs",), "// ", "tree_sitter_rust:language", "rust",
             lsp_ids=("rs", "rustic")),
    Language("c", (".c",), "// ", "tree_sitter_c:language", "c"),
    # A header may be C or C++: the C++ grammar reads both.
    Language("cpp", (".cpp", ".cc", ".cxx", ".c++", ".h", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".inl", ".tpp", ".cu",
                     ".cuh"), "// ", "tree_sitter_cpp:language", "cpp", lsp_ids=("cuda-cpp", "c++", "cxx", "cuda")),
    Language("ruby", (".rb", ".rake", ".gemspec", ".podspec", ".ru"), "# ", "tree_sitter_ruby:language", "ruby",
             filenames=("Rakefile", "Gemfile", "Vagrantfile", "Podfile", "Fastfile", "Brewfile", "Guardfile"),
             lsp_ids=("rb", "enh-ruby")),
    Language("php", (".php", ".phtml"), "// ", "tree_sitter_php:language_php", "php"),
    Language("kotlin", (".kt", ".kts"), "// ", "tree_sitter_kotlin:language", "kotlin",
             lsp_ids=("kt",)),
    Language("swift", (".swift",), "// ", "tree_sitter_swift:language", "swift"),
    Language("scala", (".scala", ".sc", ".sbt"), "// ", "tree_sitter_scala:language", "scala"),
    Language("lua", (".lua",), "-- ", "tree_sitter_lua:language", "lua"),
    Language("bash", (".sh", ".bash", ".zsh", ".ksh", ".bats"), "# ", "tree_sitter_bash:language", "bash",
             filenames=(".bashrc", ".bash_profile", ".bash_aliases", ".zshrc", ".zshenv", ".zprofile", ".profile",
                        "PKGBUILD"),
             lsp_ids=("shellscript", "sh", "zsh", "ksh", "dash", "shell", "shell-script", "shell script",
                      "bats", "shell script (bash)", "bourne again shell (bash)")),
    Language("clojure", (".clj", ".cljs", ".cljc"), "; ", lsp_ids=("clojurescript", "clojurec")),
    Language("dart", (".dart",), "// "),
    Language("elixir", (".ex", ".exs"), "# "),
    Language("erlang", (".erl", ".hrl"), "% "),
    Language("fsharp", (".fs", ".fsx"), "// ",
             lsp_ids=("f#",)),
    Language("graphql", (".graphql", ".gql"), "# "),
    Language("groovy", (".groovy", ".gradle"), "// ", filenames=("Jenkinsfile",), lsp_ids=("jenkinsfile",)),
    Language("haskell", (".hs",), "-- "),
    Language("julia", (".jl",), "# "),
    Language("nim", (".nim",), "# "),
    Language("objective-c", (".m", ".mm"), "// ",
             lsp_ids=("objc", "objcpp", "objective-cpp", "objectivec", "objective-c++")),
    Language("ocaml", (".ml", ".mli"), "(* ", comment_end=" *)",
             lsp_ids=("ocaml.interface", "tuareg")),
    Language("perl", (".pl", ".pm"), "# ",
             lsp_ids=("cperl",)),
    Language("powershell", (".ps1", ".psm1"), "# ",
             lsp_ids=("ps1",)),
    Language("proto", (".proto",), "// ", lsp_ids=("proto3", "protobuf")),
    Language("r", (".r",), "# ",
             lsp_ids=("rsplus", "ess-r")),
    Language("solidity", (".sol",), "// "),
    Language("sql", (".sql",), "-- ", lsp_ids=("mysql", "plsql", "pgsql", "postgres", "sqlite", "tsql")),
    Language("svelte", (".svelte",), "// "),
    Language("terraform", (".tf", ".hcl", ".tofu"), "# ",
             lsp_ids=("tf", "hcl", "terraform-vars", "opentofu", "opentofu-vars")),
    Language("cython", (".pyx", ".pxd", ".pxi"), "# ",
             lsp_ids=("pyrex",)),
    Language("vue", (".vue",), "// "),
    Language("zig", (".zig",), "// "),
    Language("cmake", (".cmake",), "# ", filenames=("CMakeLists.txt",)),
    Language("makefile", (".mk",), "# ", filenames=("Makefile", "GNUmakefile"),
             lsp_ids=("make", "makefile-gmake", "makefile-bsdmake")),
    Language("dockerfile", (".dockerfile",), "# ", filenames=("Dockerfile", "Containerfile"),
             lsp_ids=("docker",)),
)  # fmt: skip

SHEBANG_LENGTH = 256  # bytes read from the beginning of a file to find its interpreter

LANGUAGES: Mapping[str, Language] = MappingProxyType({row.id: row for row in _ROWS})

_BY_EXTENSION = {ending: row for row in _ROWS for ending in row.extensions}
_BY_FILENAME = {name.lower(): row for row in _ROWS for name in row.filenames}
# `Dockerfile.dev` and `Makefile-old` have the language of their first part, unless their extension says otherwise.
_VARIANT = re.compile(rf"({'|'.join(map(re.escape, _BY_FILENAME))})[.-].+", re.IGNORECASE)
_OTHER_ENDINGS = frozenset((
    ".md", ".rst", ".txt", ".html", ".json", ".yml", ".yaml", ".toml", ".xml", ".lock", ".log", ".bak", ".orig",
    ".rej", ".swp", ".tmp", ".gz", ".zip", ".png", ".svg", ".pdf",
))  # fmt: skip
_SHEBANG = re.compile(
    r"#!\s*(?:\S*/)?(?:env\s+(?:-u\s+\w+\s+|--split-string=|-\S+\s+|\w+=\S*\s+)*"
    r"(?:\S*/)?|busybox\s+)?([\w.+-]+)"
)
_BY_INTERPRETER = {
    name: row
    for names, row in (
        ("python pypy uv pythonw ipython", "python"), ("sh bash dash ash zsh ksh mksh bats openrc-run", "bash"),
        ("node nodejs", "javascript"), ("deno bun ts-node tsx", "typescript"), ("ruby jruby rake", "ruby"),
        ("perl", "perl"), ("php", "php"), ("lua luajit", "lua"), ("rscript", "r"), ("julia", "julia"),
        ("groovy", "groovy"), ("scala scala-cli amm", "scala"), ("rust-script", "rust"), ("kotlin kotlinc", "kotlin"),
        ("elixir", "elixir"), ("escript", "erlang"), ("swift", "swift"), ("pwsh", "powershell"),
        ("make gmake", "makefile"), ("runhaskell runghc stack", "haskell"), ("clojure clj bb", "clojure"),
        ("ocaml", "ocaml"), ("dart", "dart"), ("nim", "nim"),
    )
    for name in names.split()
}  # fmt: skip
# Variants of a language id: Emacs's tree-sitter modes send `python-ts`, and Vim sends file types with several parts,
# such as `python.django`. The file type `go.mod` is not a variant of `go`.
_LSP_ID_VARIANT = re.compile(r"(?!go\.)(.+?)(?:[-_]ts|\.[\w-]+)")
_BY_LSP_ID = {name: row for row in _ROWS for name in (row.id, *row.lsp_ids)}


def language_of(path: str | PurePath, lsp_id: str = "", text: str = "") -> Language | None:
    """Return the language of a file, or None if the table has no row for it.

    The client's language id (`lsp_id`) takes precedence over the file's extension, because the user may have configured
    that `.inc` is PHP. If the file name has no extension, the first line of `text` may name an interpreter (`#!`).
    """
    lsp_id = lsp_id.lower()
    id_variant = _LSP_ID_VARIANT.fullmatch(lsp_id)
    if known := _BY_LSP_ID.get(lsp_id) or (_BY_LSP_ID.get(id_variant[1]) if id_variant else None):
        return known
    pure = PurePath(path)
    if known := _BY_FILENAME.get(pure.name.lower()) or _BY_EXTENSION.get(pure.suffix.lower()):
        return known
    if (variant := _VARIANT.fullmatch(pure.name)) and pure.suffix.lower() not in _OTHER_ENDINGS:
        return _BY_FILENAME[variant[1].lower()]
    if not pure.suffix and (shebang := _SHEBANG.match(text[:SHEBANG_LENGTH].removeprefix("\ufeff"))):
        interpreter = shebang[1].lower().removesuffix(".exe").rstrip("0123456789.-")
        return LANGUAGES.get(_BY_INTERPRETER.get(interpreter, ""))
    return None


@cache
def grammar_of(language_id: str) -> tree_sitter.Language | None:
    """Return the grammar of a language, loaded once per process.

    Return None if the language has no grammar, or if the grammar's package is not installed.
    """
    row = LANGUAGES.get(language_id)
    if row is None or not row.grammar:
        return None
    import tree_sitter

    module, _, function = row.grammar.partition(":")
    try:
        pointer = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError):
        return None
    return tree_sitter.Language(pointer)


@cache
def query_of(language_id: str) -> tree_sitter.Query | None:
    """Return the query of a language, compiled once per process, or None if the language has no grammar.

    Captures: `@function` and `@class` (with `@name`, and `@body` if the body is not the field `body`), `@import`, and
    `@symbol` for other names that a file defines.
    """
    grammar = grammar_of(language_id)
    if grammar is None:
        return None
    import tree_sitter

    folder = resources.files("indexer").joinpath("queries")
    sources = [folder.joinpath(name + ".scm").read_text("utf-8") for name in LANGUAGES[language_id].query.split()]
    query: tree_sitter.Query = tree_sitter.Query(grammar, "".join(sources))
    return query


_local = threading.local()


def parser_for(language_id: str) -> tree_sitter.Parser | None:
    """Return this thread's parser for a language, or None if the language has no grammar.

    A parser has state, so threads do not share one.
    """
    parsers: dict[str, tree_sitter.Parser] = _local.__dict__.setdefault("parsers", {})
    if (known := parsers.get(language_id)) is not None:
        return known
    grammar = grammar_of(language_id)
    if grammar is None:
        return None
    import tree_sitter

    return parsers.setdefault(language_id, tree_sitter.Parser(grammar))
