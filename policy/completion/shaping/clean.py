"""Remove the markers of models, control characters, and line ends other than `\\n` from a generated text.

A text is cut at the first marker or invalid character. A marker, such as `<|endoftext|>`, counts as the end of the
text. If the text is cut at an invalid character, its last line counts as incomplete. Some source code is about markers:
if the file contains a marker, the strings and comments of the text may also contain markers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from indexer.languages import LANGUAGES
from policy.completion.shaping.reader import Stack
from policy.completion.shaping.scan import scan

LONGEST = 8_000  # characters; a longer text is cut, because it does not fit on a screen
_MARKER = re.compile(
    # Qwen, StarCoder 2, Llama 3, GPT, InCoder: <|fim_middle|>, <|endoftext|>, <|im_end|>, <|mask:0|>. F#'s operators
    # `<|` and `|>` have spaces around them, so they do not match.
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
    r"|(?<![^\n])```[\w+-]*[ \t]*(?=\n|$)"  # the fence around code in an answer of a chat model
    # Granite, StarCoder 2, Gemini, Gemma, Baichuan and others
    r"|<(?:end_of_text|code_to_intermediate|intermediate_to_code|ctrl\d+|unused\d+|reserved_(?:special_token_)?\d+)>"
    r"|<\|(?:turn|channel)>|<(?:turn|channel)\|>"  # Gemma 4
    r"|\[UNUSED_TOKEN_\d+\]|<seed:[\w/]+>"  # InternLM, Seed-OSS
    r"|</?s>"
)
_STRIKES = frozenset({"<s>", "</s>"})  # markers of Llama, but also the HTML tags for struck text
_MARKUP = frozenset({"javascript", "php", "svelte", "tsx", "vue"})
_MARKER_BEGUN = re.compile(r"<(?:\|(?! )[\w▁ -]{0,40}\|?|｜[^｜\n>]{0,40}｜?|fim[_-]\w*)$")
# The invalid characters: control characters except tab and `\n`, halves of surrogate pairs, other characters that end
# a line in some editors, noncharacters, the replacement character, and the byte order mark.
_BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufffd\ufffe\uffff\ufeff]")


@dataclass(frozen=True, slots=True)
class Clean:
    """The cleaned text.

    `ended` says whether a marker certainly ends the text. `broken` says whether the text was cut at an invalid
    character, at an incomplete marker, or at `LONGEST` characters.
    """

    text: str
    ended: bool = False
    broken: bool = False


class Cleaner:
    """Cleans the generated texts at a cursor between `left` and `right`.

    `stack` has the brackets, strings and comments that are open at the cursor.
    """

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
        """Return `text` up to the first marker or invalid character, with `\\n` as line end.

        If `streaming` is true, more text follows, so characters at the end of `text` that may begin a marker are left
        out.
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
            ):  # only whitespace follows, so the marker ends the text even inside a string
                return Clean(text[: marker.start()], ended=not streaming)
        if (begun := _MARKER_BEGUN.search(text)) and (streaming or not self._in_literal(text[: begun.start()])):
            return Clean(text[: begun.start()], broken=not streaming)
        return Clean(text, broken=bool(broken) or cut)

    def _can_be_meant(self, text: str, marker: re.Match[str]) -> bool:
        """Return whether `marker`, which `text` contains, can be a part of the source code."""
        if marker.group() in _STRIKES:
            before = text[: marker.start()]
            struck = before.rfind("<s>") > before.rfind("</s>") or (self._struck and "</s>" not in before)
            return self._language in _MARKUP and struck == (marker.group() == "</s>")
        if marker.group()[0] == "`":
            return self._language not in LANGUAGES or self._in_literal(text[: marker.start()])
        return self._about_markers and self._in_literal(text[: marker.start()])

    def _in_literal(self, text: str) -> bool:
        return scan(text, self._language, self._stack).literal
