"""Decide whether a text at the cursor adds a syntax error to the file.

The region around the cursor is parsed with every text. This is enough if neither the file nor the region has an error
without the text, the region has no error with the text, and the text leaves nothing open. Otherwise, the whole file is
parsed as well. In code with errors, a parser's result depends on distant text, and the text that closes a bracket may
be far below.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.parsing import ParseCheck
from policy.completion.shaping.region import Region

LARGEST = 200_000  # characters; a file that has more before or after the cursor is never parsed as a whole


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of parsing the file with a text at the cursor.

    `fits` says whether the text adds no error. `finished` says whether the cursor's line has no error with the text.
    `longest` is the offset in the text at which the first error inside the text ends, or the length of the text. Every
    longer head contains this error. `errors` is the number of errors that the last parse found. `costly` says whether
    this was a parse of the whole file, and `flawless` says whether it was one and found no error.
    """

    fits: bool
    finished: bool
    longest: int
    errors: int
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
        self._in_file: Future[ParseCheck | None] | None = None

    def prepare(self) -> None:
        """Parse the region without a generated text, and start to parse the whole file."""
        if self._in_region is None:
            self._in_region = ParseCheck(self._region, self._language, whole=self._is_whole)
            self._in_file = self._files.start(self._document, self._check_file)

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
        if not finished and not (unfinished and region.adds_none(errors, text)):
            return Verdict(False, False, longest, len(errors))
        file = self._file_check()
        has_errors = region.before or (file is not None and file.before)
        if finished and not (errors or opens or has_errors):
            return Verdict(True, True, longest, 0)
        if errors and region.before and not region.from_scratch:
            errors = region.errors_from_scratch(text)
        fits = errors.no_more_than(region.before)
        if file is None or not fits:
            return Verdict(fits, finished, longest, len(errors))
        errors = file.errors(text)
        fits = errors.no_more_than(file.before)
        return Verdict(fits, finished, longest, len(errors), flawless=not errors, costly=True)

    def _file_check(self) -> ParseCheck | None:
        """Return the result of `_check_file`. Wait until it is known."""
        assert self._in_file is not None, "prepare() has started the check"
        try:
            return self._in_file.result()
        except CancelledError:  # a later completion of the document has begun, but this one is still wanted
            self._in_file = Future()
            self._in_file.set_result(self._check_file())
            return self._in_file.result()

    def _check_file(self) -> ParseCheck | None:
        """Parse the whole file without a generated text.

        Return None if the region is the whole file, or if the file is too large.
        """
        left, right = self._file.left, self._file.right
        if self._is_whole or max(len(left), len(right)) > LARGEST:
            return None
        tree = self._files.tree(self._document, self._language, (left + right).encode("utf-8", "replace"))
        return ParseCheck(self._file, self._language, tree)
