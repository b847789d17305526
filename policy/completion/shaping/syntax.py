"""Decide whether a text at the cursor adds a syntax error to the file.

The region around the cursor is parsed with every text. This is enough if neither the file nor the region has an error
without the text, the region has no error with the text, and the text opens nothing that the file closes far below.
Otherwise, the whole file is parsed as well, because the recovery of a parser from an error depends on distant text.
"""

from __future__ import annotations

from dataclasses import dataclass

from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.parsing import ParseCheck
from policy.completion.shaping.region import Region

LARGEST = 200_000  # a file with more characters before or after the cursor is never parsed as a whole


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of parsing with a text at the cursor.

    `fits` says whether the text adds no error, and `finished` whether the cursor's line has no error with the text.
    `longest` is a length in characters: a head of the text that is longer than this has the same verdict. `flawless`
    says whether the whole file has no error with the text, and `costly` whether the whole file was parsed with the
    text.
    """

    fits: bool
    finished: bool
    longest: int
    flawless: bool = False
    costly: bool = False


class SyntaxCheck:
    """Checks the syntax of one `file` with different texts at the cursor, in a language that has a grammar.

    `region` is the part of the file around the cursor. `files` keeps the syntax tree of the file under the name
    `document`.
    """

    def __init__(self, region: Region, file: Region, language: str, files: ParsedFiles, document: str) -> None:
        self._language = language
        self._file = file
        self._files = files
        self._document = document
        self._is_whole = region.left == file.left and region.right == file.right
        self._region = region
        self._in_region: ParseCheck | None = None
        self._in_file: ParseCheck | None = None

    def prepare(self) -> None:
        """Parse the region without generated text, and the whole file too unless its last parse was slow."""
        if self._in_region is None:
            self._in_region = ParseCheck(self._region, self._language, whole=self._is_whole)
            if not self._files.slow(self._document):
                self._parse_file()

    def judge(self, text: str, *, opens: bool, unfinished: bool) -> Verdict:
        """Return the verdict on `text`.

        `opens` says whether `text` leaves something open. `unfinished` says whether `text` may fit although the
        cursor's line still has an error.
        """
        self.prepare()
        region = self._in_region
        assert region is not None
        errors = region.errors(text)
        finished = len(errors) <= region.elsewhere
        longest = region.length_before(errors, text)
        has_errors = region.before or (self._in_file is not None and self._in_file.before)
        if finished and not (errors or opens or has_errors):
            return Verdict(True, True, longest)
        if not finished and not (unfinished and region.adds_none(errors, text)):
            return Verdict(False, False, longest)
        self._parse_file()
        if errors and region.before and not region.from_scratch:
            errors = region.errors_from_scratch(text)
        fits = errors.no_more_than(region.before)
        if self._in_file is None or not fits:
            return Verdict(fits, finished, longest)
        errors, before = self._in_file.errors(text), self._in_file.before
        return Verdict(errors.no_more_than(before), finished, longest, flawless=not errors, costly=True)

    def _parse_file(self) -> None:
        """Parse the whole file without generated text, unless it is the region or too large."""
        left, right = self._file.left, self._file.right
        if self._in_file is None and not self._is_whole and max(len(left), len(right)) <= LARGEST:
            tree = self._files.tree(self._document, self._language, (left + right).encode("utf-8", "replace"))
            self._in_file = ParseCheck(self._file, self._language, tree)
