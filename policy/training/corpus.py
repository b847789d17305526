"""Step 1, `train corpus`: fetch the packages of a list, and write the source files of each into one of three splits.

The list assigns each package to the split train, valid or test, so that the same repositories are held out for every
model. The step keeps only hand-written source files. It keeps only repositories whose files refer to each other,
because chunks of other files help only in such repositories. The paper's filter (appendix A) requires at least five
files, three imports per file and two local imports per file. The filter of this step is weaker (`MIN_IMPORTS`,
`MIN_LOCAL_IMPORTS`). A file is dropped if it is nearly the same as an earlier file. Packages of the test split come
first and packages of the train split come last, so a test file is never dropped because of a training file.

Output: `OUT/<split>/<registry>~<name>/<path>` and a manifest with a row per package.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from indexer.languages import language_of

from . import manifest
from .fetch import Package, fetch, read_list, source_files
from .manifest import TrainingError

LIST = Path(__file__).with_name("corpus.csv")
LANGUAGES = frozenset({"python", "javascript", "typescript", "tsx", "java", "csharp", "go", "rust", "c", "cpp"})
MIN_FILES, MIN_IMPORTS, MIN_LOCAL_IMPORTS = 5, 2.0, 1.0
MAX_BYTES, MIN_BYTES = 100_000, 200

_EXCLUDED_FOLDERS = frozenset({
    "node_modules", "vendor", "vendored", "_vendor", "third_party", "thirdparty", "3rdparty", "external", "extern",
    "deps", "dist", "build", "esm", "cjs", "umd", "es", "es6", "_esm", "_cjs", "bundles", "min", "locale", "locales",
    "migrations", "testdata", "__snapshots__", "gen", "generated", "amalgamation",
})  # fmt: skip
_GENERATED = re.compile(
    r"do not edit|auto-?generated|@generated|generated (?:by|from|file)|automatically generated", re.I
)
_IMPORTS = {
    "python": r"^\s*(?:from\s+([.\w]+)\s+import|import\s+([.\w]+))",
    "javascript": r"""(?:\bfrom\s*|\brequire\s*\(\s*|^\s*import\s*\(?\s*)['"]([^'"]+)['"]""",
    "java": r"^\s*import\s+(?:static\s+)?([\w.]+)",
    "csharp": r"^\s*using\s+([\w.]+)\s*;",
    "go": r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([\w./~-]+\.[\w./~-]+|[a-z][\w/]*)"\s*$',
    "rust": r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:use\s+([\w:]+)|mod\s+(\w+)\s*;)",
    "c": r"""^\s*#\s*include\s+([<"][^>"]+)[>"]""",
}
_SAME_IMPORTS = {"typescript": "javascript", "tsx": "javascript", "cpp": "c"}
_PATTERNS = {language: re.compile(pattern, re.M) for language, pattern in _IMPORTS.items()}


def run(out: Path, downloads: Path, packages: Path = LIST, limit: int = 0) -> None:
    """Fetch, filter, de-duplicate and write the packages of a list. `limit` is the number of packages to use (0: all).

    A package that cannot be fetched, or that the filter rejects, is reported and left out. Raises `TrainingError` if no
    package remains.
    """
    wanted = read_list(packages)
    wanted = wanted[:limit] if limit else wanted
    manifest.begin(out, "corpus", {"list": packages}, {"limit": limit})
    if manifest.read(out)["done"]:
        return
    seen = NearDuplicates()
    rows: list[dict[str, object]] = []
    order = {"test": 0, "valid": 1, "train": 2}
    for package in tqdm(sorted(wanted, key=lambda package: order[package.split]), desc="corpus", unit="package"):
        row: dict[str, object] = asdict(package)
        try:
            files = read_sources(package, downloads)
            row["found"] = len(files)
            files = {path: text for path, text in files.items() if seen.add(text)}
            row |= {"files": len(files), "bytes": sum(map(len, files.values())), **import_counts(files)}
            if reason := rejection_reason(row):
                raise TrainingError(reason)
            _write_files(out / package.split / package.folder, files)
            row["languages"] = dict(Counter(_language(path) for path in files))
        except (TrainingError, OSError) as problem:
            row["left_out"] = str(problem)
            tqdm.write(f"{package.name}: left out: {problem}")
        rows.append(row)
    kept = [row for row in rows if "left_out" not in row]
    if not kept:
        raise TrainingError("no package of the list could be used")
    counts = {split: sum(row["split"] == split for row in kept) for split in order}
    manifest.finish(out, packages=rows, repositories=counts, files=sum(int(str(row["files"])) for row in kept))


def read_sources(package: Package, downloads: Path) -> dict[str, str]:
    """Return the hand-written source files of a package by path. Raises `TrainingError` if the download fails."""
    archive = fetch(package, downloads)
    texts = {}
    for path, content in source_files(archive):
        if _language(path) in LANGUAGES and (text := decode_source(path, content)) is not None:
            texts[path] = text
    # Some npm packages contain `src/` and the files compiled from it. Only those in `src/` are hand-written.
    original = {path: text for path, text in texts.items() if PurePosixPath(path).parts[0] == "src"}
    return original if package.registry == "npm" and len(original) >= MIN_FILES else texts


def decode_source(path: str, content: bytes) -> str | None:
    """Return the text of a source file, or None if the file is not suitable for training.

    A file is not suitable if it is vendored, generated, minified or not UTF-8, or if it has fewer than `MIN_BYTES` or
    more than `MAX_BYTES` bytes.
    """
    parts = PurePosixPath(path).parts
    if _EXCLUDED_FOLDERS & {part.lower() for part in parts[:-1]} or ".min." in parts[-1] or path.endswith(".d.ts"):
        return None
    if not MIN_BYTES <= len(content) <= MAX_BYTES:
        return None
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    letters = sum(map(str.isalnum, text))
    if max(map(len, lines)) > 500 or len(text) / len(lines) > 100 or letters < 0.25 * len(text) or "\0" in text:
        return None
    return None if _GENERATED.search(text[:1000]) else text


def import_counts(files: Mapping[str, str]) -> dict[str, float]:
    """Return the mean number of imports and of local imports per file."""
    if not files:
        return {"imports": 0.0, "local_imports": 0.0}
    stems = {PurePosixPath(path).stem for path in files} | {
        part for path in files for part in PurePosixPath(path).parts
    }
    total = local = 0
    for path, text in files.items():
        imported = imports(path, text)
        total += len(imported)
        local += sum(_is_local(name, path, stems) for name in imported)
        # In these languages, the files of a package use each other without an import. Therefore up to two other files
        # of the folder count as imported.
        if _language(path) in {"go", "java", "csharp"}:
            siblings = sum(PurePosixPath(other).parent == PurePosixPath(path).parent for other in files) - 1
            total, local = total + min(siblings, 2), local + min(siblings, 2)
    return {"imports": round(total / len(files), 2), "local_imports": round(local / len(files), 2)}


def imports(path: str, text: str) -> list[str]:
    """Return the names of the modules that a file imports, as written in its import statements."""
    language = _language(path)
    found = _PATTERNS[_SAME_IMPORTS.get(language, language)].findall(text)
    return [name if isinstance(name, str) else next(filter(None, name), "") for name in found]


def rejection_reason(row: Mapping[str, object]) -> str:
    """Return why a repository with these counts is not used for training, or "" if it is used."""
    for name, least in (("files", MIN_FILES), ("imports", MIN_IMPORTS), ("local_imports", MIN_LOCAL_IMPORTS)):
        if float(str(row[name])) < least:
            return f"{row[name]} {name.replace('_', ' ')}{'' if name == 'files' else ' a file'}, needs {least:g}"
    return ""


class NearDuplicates:
    """Detects near-duplicate texts by MinHash: texts whose sets of five-word sequences are similar.

    With 64 hashes in 16 bands, texts count as near-duplicates if their Jaccard similarity is about 0.8 or more.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._factors = random.integers(1, 1 << 31, 64, dtype=np.uint64) * 2 + 1
        self._offsets = random.integers(0, 1 << 62, 64, dtype=np.uint64)
        self._bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._signatures: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []

    def add(self, text: str) -> bool:
        """Store `text` and return True, or return False without storing it if a near-duplicate was stored before."""
        words = re.findall(r"\w+", text)
        shingles = {zlib.crc32(" ".join(words[i : i + 5]).encode()) for i in range(max(1, len(words) - 4))}
        hashes = np.fromiter(shingles, np.uint64)[:, None] * self._factors + self._offsets
        signature = (hashes >> np.uint64(32)).min(axis=0).astype(np.uint32)
        keys = [(band, signature[band * 4 : band * 4 + 4].tobytes()) for band in range(16)]
        candidates = {number for key in keys for number in self._bands.get(key, ())}
        if any(float((self._signatures[number] == signature).mean()) >= 0.8 for number in candidates):
            return False
        for key in keys:
            self._bands[key].append(len(self._signatures))
        self._signatures.append(signature)
        return True


def _is_local(name: str, path: str, stems: Iterable[str]) -> bool:
    language = _language(path)
    if language in {"c", "cpp"}:
        return PurePosixPath(name[1:]).stem in stems
    if language == "rust":
        return not name.startswith(("std", "core", "alloc")) and (
            name.startswith(("crate", "super", "self")) or name.split("::")[0] in stems
        )
    if language == "python":
        return name.startswith(".") or name.split(".")[0] in PurePosixPath(path).parts
    if language == "java":
        return ".".join(name.split(".")[:3]).replace(".", "/") in path
    if language == "csharp":
        return name.split(".")[0] in stems
    if language == "go":
        return "." in name.split("/")[0] and name.rsplit("/", 1)[-1] in stems
    return name.startswith(".")


def _language(path: str) -> str:
    found = language_of(path)
    return found.id if found else ""


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        target = folder / path
        if ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8", newline="")
