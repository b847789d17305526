"""Remove what no person wrote: markers of models, control characters, foreign line ends.

A generator may send anything. Text ends where it stops being text; what comes before is used. A marker that is cut off
ends the text as the model's own end does, a broken character breaks it. Source code that is about such markers is
code: in a file that has one in a string or a comment, another one may be written in a string or a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policy.completion.shaping.scan import Stack, scan

LONGEST = 8_000  # characters of a text that are looked at: more than any screen shows
_MARKER = re.compile(
    r"<\|[\w▁ /.-]{1,40}\|>"  # Qwen, StarCoder 2, Llama 3, GPT: <|fim_middle|>, <|endoftext|>, <|im_end|>
    r"|<｜[^｜\n]{1,40}｜>"  # DeepSeek: <｜fim▁begin｜>
    r"|<\|?fim[_-]\w+\|?>"  # StarCoder: <fim_prefix>
    r"|<(?:file_sep|repo_name|reponame|filename|gh_stars|jupyter_\w+|issue_\w+|empty_output|commit_\w+|NAME|EMAIL|KEY)>"
    r"|▁?<(?:PRE|SUF|MID|EOT|FILL_ME|END|SEP|CURSOR)>"  # Code Llama
    r"|<(?:cc|eof|cfc_info|end_of_turn|start_of_turn|bos|eos|pad|unk|mask|endoftext)>"  # Repoformer, Gemma, …
    r"|\[/?(?:PREFIX|SUFFIX|MIDDLE|INST)\]"  # Codestral
    r"|</?s>"
)
_MARKER_BEGUN = re.compile(r"<(?:\|[\w▁ -]{0,40}\|?|｜[^｜\n>]{0,40}｜?|fim[_-]\w*)$")
# Control characters but tab and line end, halves of surrogate pairs, characters that end lines in some editors, the
# replacement character and the byte order mark.
_BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufffd\ufffe\uffff\ufeff]")


@dataclass(frozen=True, slots=True)
class Clean:
    """What is left of a text. `ended`: a marker ends it; `broken`: something that is no text does."""

    text: str
    ended: bool = False
    broken: bool = False


class Cleaner:
    """Cleans the texts at one cursor: between `left` and `right`, with `stack` open."""

    def __init__(self, left: str, right: str, language: str, stack: Stack) -> None:
        self._language = language
        self._stack = stack
        self._about_markers = any(
            match.group() not in ("</s>", "<s>") for side in (left, right) for match in _MARKER.finditer(side)
        )
        self._struck = left.rfind("<s>") > left.rfind("</s>")

    def clean(self, text: str) -> Clean:
        """`text` up to what no person wrote, its lines ended by `\\n`."""
        cut = len(text) > LONGEST
        text = text[:LONGEST]
        if "\r" in text:
            text = re.sub("\r\n?", "\n", text.removesuffix("\r"))
        broken = _BROKEN.search(text)
        if broken:
            text = text[: broken.start()]
        for marker in _MARKER.finditer(text):
            if not self._meant(text, marker):
                return Clean(text[: marker.start()], ended=True)
        if (begun := _MARKER_BEGUN.search(text)) and not self._in_literal(text[: begun.start()]):
            return Clean(text[: begun.start()], broken=True)
        return Clean(text, broken=bool(broken) or cut)

    def _meant(self, text: str, marker: re.Match[str]) -> bool:
        """Whether a person would write this marker here."""
        if marker.group() == "</s>" and (self._struck or "<s>" in text[: marker.start()]):
            return True
        if marker.group() == "<s>" and "</s>" in text[marker.end() :]:
            return True
        at_the_end = not text[marker.end() :].strip()
        return self._about_markers and not at_the_end and self._in_literal(text[: marker.start()])

    def _in_literal(self, text: str) -> bool:
        return scan(text, self._language, self._stack).literal
