"""Remove the markers of models, control characters, and line ends other than `\\n` from a generated text.

A text is cut at the first marker or invalid character. A marker, such as `<|endoftext|>`, counts as the end of the
text. If the text is cut at an invalid character, its last line counts as incomplete.

Some markers can also be source code:

- Some source code is about markers: if the file contains a marker, the strings and comments of the text may also
  contain markers.
- A marker that is a name in brackets, such as `[EOS]` or `<MASK>`, can be a list, an index or a type argument, if the
  file contains the name.
- A marker that is a tag, such as `</code>`, is markup if the file contains the opening tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from indexer.languages import LANGUAGES
from indexer.model import Cursor
from policy.completion.shaping.reader import Stack
from policy.completion.shaping.scan import scan

LONGEST = 8_000  # characters; a longer text is cut, because it does not fit on a screen
_NAMES = "|".join(
    (
        # StarCoder, StarCoder 2, SmolLM2, Mellum, Granite
        "file_sep|repo_name|reponame|filename|gh_stars|empty_output|NAME|EMAIL|KEY|PASSWORD|end_of_text",
        "issue_(?:start|comment|closed)|commit_(?:before|msg|after)|jupyter_(?:start|text|code|output|script)",
        "pr|pr_(?:status|is_merged|base|base_code|file|diff|diff_hunk|diff_hunk_comment_line|comment|event_id|review)",
        "pr_(?:review_state|review_comment|in_reply_to_review_id|in_reply_to_comment_id)",
        "code_to_intermediate|intermediate_to_code",
        "PRE|SUF|MID|EOT|FILL_ME|END|SEP|CURSOR|REPO?",  # Code Llama
        "(?:PAD|UNK|CLS|MASK|BOS|EOS|EOP|EOD|SEP)(?:_TOKEN)?",  # Command R and others
        "EOL|INDENT|DEDENT|(?:STR|NUM|CHAR)_LIT",  # CodeGPT
        "cc|eof|cfc_info",  # Repoformer
        "(?:start|end)_of_(?:turn|image|audio|utterance)|file_separator|image_soft_token|2mass",  # Gemma, SmolDocling
        "bos|eos|eot|pad|unk|cls|mask|endoftext",
        r"mask_\d+|mask:\d+|sep|eom|extra_id_\d+|sop|eop|eod|eoh|eoa",  # CodeGen 2, CodeT5, GLM, ERNIE, InternLM
        "/?(?:think|tool_call|tool_response|arg_key|arg_value)|minimax:tool_call",  # Qwen 3, GLM 4.5, MiniMax
        r"ctrl\d+|unused\d+|dummy\d+|reserved_(?:special_token_)?\d+|SPECIAL_\d+|TOKENS_UNUSED_\d+",
        "0x[0-9A-F]{2}",  # a byte, in Llama's vocabulary
        r"seed:[\w/]+|AIX-SPAN-\w+",  # Seed-OSS, aiXcoder
    )
)
_BRACKETED = "|".join(
    (
        "/?(?:PREFIX|SUFFIX|MIDDLE|INST)|TOOL_CALLS|TOOL_CONTENT|ARGS|CALL_ID",  # Codestral, Mistral, Llama 2
        "/?(?:AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT|MODEL_SETTINGS|THINK)|IMG|IMG_BREAK|IMG_END",
        "[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT|@BOS@",  # GLM, BERT, Kimi, Gemma
        r"UNUSED_TOKEN_\d+",  # InternLM
    )
)
_MARKER = re.compile(
    "(?=[<>▁_`#|\\[\\]])(?:"  # without this lookahead, the search would take several times as long
    # Qwen, StarCoder 2, Llama 3, GPT, InCoder: <|fim_middle|>, <|endoftext|>, <|im_end|>, <|mask:0|>. F#'s operators
    # `<|` and `|>` have spaces around them, so they do not match.
    r"<\|(?! )[\w▁ /.:-]{1,40}(?<! )\|>"
    r"|<\| file [^|\n]{1,80}\|>"  # InCoder
    r"|<\|/?(?:turn|channel|think|tool|tool_call|tool_response)>|</?(?:turn|channel|think|tool|tool_call|tool_response)\|>"
    r"|<｜[^｜\n]{1,40}｜>"  # DeepSeek: <｜fim▁begin｜>
    r"|<\|?(?:fim|FIM)[_▁-]\w+\|?>"  # StarCoder: <fim_prefix>
    r"|<\[[\w▁-]{1,40}\]>"  # Seed-Coder: <[fim-suffix]>
    rf"|[▁_]?<(?:{_NAMES})>"
    rf"|\[(?:{_BRACKETED})\]|<</?SYS>>"
    r"|\[\|(?:endofturn|assistant|user|system|tool)\|\]"  # EXAONE
    r"|>>(?:PREFIX|SUFFIX|MIDDLE|TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|ANSWER|QUESTION|DOMAIN)<<"  # Falcon
    r"|\[e~\[|\]~!?b[\[\]]|\]![pd]~\["  # MiniMax
    r"|\|\|\|(?:IP|EMAIL|PHONE)_(?:ADDRESS|NUMBER)\|\|\||\|(?:ENDOFTEXT|NEWLINE|SPEAKER)\|"  # OLMo, Persimmon
    r"|(?<![^\n])```[\w+-]*[ \t]*(?=\n|$)"  # the fence around code in an answer of a chat model
    r"|(?<![^\n])### (?:Instruction|Response|Human|Assistant)\b"  # the headings of a chat
    r"|</?s>|</(?:code|answer|response|completion)>"
    ")"
)
_TAG = re.compile(r"</?(s|code|answer|response|completion)>")
_NAME = re.compile(r"[<\[](\w+)[>\]]")
_PROSE = ("```", "###")  # how a marker begins that is also Markdown
_MARKUP = frozenset({"javascript", "php", "svelte", "tsx", "vue"})
_ELEMENT = re.compile(r"</[A-Za-z]")
_MARKER_BEGUN = re.compile(r"<(?:\|(?! )[\w▁ -]{0,40}\|?|｜[^｜\n>]{0,40}｜?|fim[_-]\w*)$")
# The invalid characters: control characters except tab and `\n`, halves of surrogate pairs, other characters that end
# a line in some editors, invisible characters, characters that change the direction of the text, noncharacters, the
# replacement character, and the byte order mark.
_BROKEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200b\u2028-\u202e\u2060-\u206f\ufff9-\ufffd\ufffe\uffff\ufeff]"
)


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
    """Cleans the generated texts at a cursor between `left` and `right`, in a file with the text `file`.

    `stack` has the brackets, strings and comments that are open at the cursor.
    """

    def __init__(self, left: str, right: str, file: Cursor, stack: Stack) -> None:
        self._language = file.language
        self._file = file
        self._stack = stack
        self._about_markers = any(
            not _is_common(match.group()) for side in (left, right) for match in _MARKER.finditer(side)
        )
        self._markup = self._language in _MARKUP or (
            self._language not in LANGUAGES and bool(_ELEMENT.search(left) or _ELEMENT.search(right))
        )

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
                unfinished = streaming and marker.group().startswith(_PROSE) and marker.end() == len(text)
                return Clean(text[: marker.start()], ended=not unfinished)
            if not _is_common(marker.group()) and not text[marker.end() :].strip() and not self._is_name(text, marker):
                # Only whitespace follows, so the marker ends the text even inside a string.
                return Clean(text[: marker.start()], ended=not streaming)
        if (begun := _MARKER_BEGUN.search(text)) and (streaming or not self._in_literal(text[: begun.start()])):
            return Clean(text[: begun.start()], broken=not streaming)
        return Clean(text, broken=bool(broken) or cut)

    def _can_be_meant(self, text: str, marker: re.Match[str]) -> bool:
        """Return whether `marker`, which `text` contains, can be a part of the source code."""
        before = text[: marker.start()]
        if tag := _TAG.fullmatch(marker.group()):
            name = tag.group(1)
            literal = name != "s" and self._in_literal(before)  # a comment can contain markup
            return (self._markup or literal) and self._is_open(name, before) == (marker.group()[1] == "/")
        if marker.group().startswith(_PROSE):
            return self._language not in LANGUAGES or self._in_literal(before)
        return self._is_name(text, marker) or (self._about_markers and self._in_literal(before))

    def _is_open(self, name: str, before: str) -> bool:
        """Return whether an element with this name is open after `before`, the beginning of the text."""
        for text in (before, self._file.prefix):
            opening = max(text.rfind(f"<{name}>"), text.rfind(f"<{name} "))
            closing = text.rfind(f"</{name}>")
            if opening != closing:  # one of them is there
                return opening > closing
        return False

    def _is_name(self, text: str, marker: re.Match[str]) -> bool:
        """Return whether `marker` is a name that the file contains, in brackets."""
        if not (inner := _NAME.fullmatch(marker.group())) or self._in_literal(text[: marker.start()]):
            return False
        if marker.group()[0] == "<" and not re.search(r"\w\Z", text[: marker.start()]):
            return False  # it is no type argument, because no type is before it
        name = re.compile(
            rf"(?<![\w<\[]){inner.group(1)}(?!\w)|(?<!\w){inner.group(1)}(?![\w>\]])|\w\[{inner.group(1)}\]"
        )
        return any(name.search(side) for side in (self._file.prefix, self._file.suffix))

    def _in_literal(self, text: str) -> bool:
        return scan(text, self._language, self._stack).literal


def _is_common(marker: str) -> bool:
    """Return whether a marker is also common in files that are not about markers."""
    return bool(_TAG.fullmatch(marker)) or marker.startswith(_PROSE)
