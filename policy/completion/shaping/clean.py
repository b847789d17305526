"""Remove model markers, control characters and foreign line ends from a generated text.

A generator can send anything. The text is used up to the first marker or broken character. A marker ends the text
like the model's own end of text; a broken character means that its last line cannot be trusted. Source code can be
about such markers: if the file has a marker in a string or a comment, the text may have one there as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from indexer.languages import LANGUAGES
from policy.completion.shaping.reader import Stack
from policy.completion.shaping.scan import scan

LONGEST = 8_000  # characters of a text that are read: more than any screen shows
_MARKER = re.compile(
    # Qwen, StarCoder 2, Llama 3, GPT, InCoder: <|fim_middle|>, <|endoftext|>, <|im_end|>, <|mask:0|>, but no F# pipes
    r"<\|(?! )[\w▁ /.:-]{1,40}(?<! )\|>"
    r"|<｜[^｜\n]{1,40}｜>"  # DeepSeek: <｜fim▁begin｜>
    r"|<\|?fim[_▁-]\w+\|?>"  # StarCoder: <fim_prefix>
    r"|<\[[\w▁-]{1,40}\]>"  # Seed-Coder: <[fim-suffix]>
    r"|<(?:file_sep|repo_name|reponame|filename|gh_stars|jupyter_\w+|issue_\w+|empty_output|commit_\w+|NAME|EMAIL|KEY)>"
    r"|▁?<(?:PRE|SUF|MID|EOT|FILL_ME|END|SEP|CURSOR)>"  # Code Llama
    r"|▁?<AIX-SPAN-\w+>"  # aiXcoder
    r"|<(?:cc|eof|cfc_info|end_of_turn|start_of_turn|bos|eos|pad|unk|mask|endoftext)>"  # Repoformer, Gemma, …
    r"|<(?:mask_\d+|sep|eom|extra_id_\d+|sop|eop|eod|/?think|/?tool_call)>"  # CodeGen 2, CodeT5, GLM, Qwen 3
    r"|\[/?(?:PREFIX|SUFFIX|MIDDLE|INST|gMASK)\]|<</?SYS>>"  # Codestral, GLM, Llama 2
    r"|(?<![^\n])```[\w+-]*[ \t]*(?=\n|$)"  # a chat model's answer
    r"|</?s>"
)
_STRIKES = frozenset({"<s>", "</s>"})  # a marker of Llama, and a tag of HTML
_MARKUP = frozenset({"javascript", "php", "svelte", "tsx", "vue"})
_MARKER_BEGUN = re.compile(r"<(?:\|(?! )[\w▁ -]{0,40}\|?|｜[^｜\n>]{0,40}｜?|fim[_-]\w*)$")
# Control characters except tab and line end, halves of surrogate pairs, characters that end lines in some editors, the
# replacement character and the byte order mark.
_BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufffd\ufffe\uffff\ufeff]")


@dataclass(frozen=True, slots=True)
class Clean:
    """The cleaned text. `ended`: it was cut at a marker. `broken`: it was cut at a broken character or at its limit."""

    text: str
    ended: bool = False
    broken: bool = False


class Cleaner:
    """Cleans the texts at one cursor: between `left` and `right`, with `stack` open."""

    def __init__(self, left: str, right: str, language: str, stack: Stack) -> None:
        self._language = language
        self._stack = stack
        self._about_markers = any(
            match.group() not in _STRIKES and match.group()[0] != "`"
            for side in (left, right)
            for match in _MARKER.finditer(side)
        )
        self._struck = left.rfind("<s>") > left.rfind("</s>")

    def clean(self, text: str, *, streaming: bool = False) -> Clean:
        """Return `text` up to the first marker or broken character, with `\n` as line end.

        While the text is `streaming`, characters at its end that can become a marker are left out.
        """
        cut = len(text) > LONGEST
        text = text[:LONGEST]
        if "\r" in text:
            text = re.sub("\r\n?", "\n", text.removesuffix("\r"))
        broken = _BROKEN.search(text)
        if broken:
            text = text[: broken.start()]
        for marker in _MARKER.finditer(text):
            if not self._can_be_meant(text, marker):
                fence_begun = streaming and marker.group()[0] == "`" and marker.end() == len(text)
                return Clean(text[: marker.start()], ended=not fence_begun)
            if (
                marker.group() not in _STRIKES and marker.group()[0] != "`" and not text[marker.end() :].strip()
            ):  # the model's own end
                return Clean(text[: marker.start()], ended=not streaming)
        if (begun := _MARKER_BEGUN.search(text)) and (streaming or not self._in_literal(text[: begun.start()])):
            return Clean(text[: begun.start()], broken=not streaming)
        return Clean(text, broken=bool(broken) or cut)

    def _can_be_meant(self, text: str, marker: re.Match[str]) -> bool:
        """Return whether this marker can be source code here."""
        if marker.group() in _STRIKES:
            before = text[: marker.start()]
            struck = before.rfind("<s>") > before.rfind("</s>") or (self._struck and "</s>" not in before)
            return self._language in _MARKUP and struck == (marker.group() == "</s>")
        if marker.group()[0] == "`":
            return self._language not in LANGUAGES or self._in_literal(text[: marker.start()])
        return self._about_markers and self._in_literal(text[: marker.start()])

    def _in_literal(self, text: str) -> bool:
        return scan(text, self._language, self._stack).literal
