r"""Where does a text hold something like a secret? What lies there is not shown to a model.

The rules are those that scanners agree on: token formats that name their issuer, private key blocks, and a literal
assigned to a name like `password` or `api_key` that is random enough to be one. They err on the side of withholding:
a chunk too few costs a little quality, a key in a prompt may end up in a file. They are asked of a whole file, since a
key of many lines is recognised by its first one.

A scanner library was weighed and not taken: detect-secrets reads files line by line through some twenty plugin
objects, about 100 times slower than the search below, which has to run over every file of a workspace.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

# Each format begins with a literal, which `in` finds some hundred times faster than one pattern of alternatives.
_TOKENS = tuple(
    (literal, re.compile(pattern))
    for literal, pattern in (
        # Up to its end, or as far as a key may reach where that is missing.
        ("PRIVATE KEY", r"(?s)-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?:.{0,20000}?-----END|.{0,20000})"),
        ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),  # AWS
        ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        ("gh", r"\bgh[pousr]_[A-Za-z0-9]{36}"),  # GitHub
        ("github_pat_", r"\bgithub_pat_\w{22,}"),
        ("glpat-", r"\bglpat-[\w-]{20}"),  # GitLab
        ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),  # Slack
        ("AIza", r"\bAIza[\w-]{35}"),  # Google
        ("k_live_", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),  # Stripe
        ("sk-", r"\bsk-(?:ant-|proj-)?[\w-]{32,}"),  # model providers
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),  # package registries
        ("pypi-AgEI", r"pypi-AgEI[\w-]{50,}"),
        ("SG.", r"\bSG\.[\w-]{22}\.[\w-]{43}"),  # SendGrid
        # JSON web token, from its second part on: to look for the first one would go through a run of such characters
        # from each "eyJ" in it.
        (".eyJ", r"\.eyJ[\w-]{10,}\.[\w-]{10,}"),
        ("://", r"""://[^/\s:@'"{}$<>%]{1,64}:[^/\s:@'"{}$<>%]{6,64}@"""),  # a URL with a password
    )
)
_LITERAL = re.compile(r"""["']([^"'\s]{6,200})["']""")
_ASSIGNED_TO = re.compile(
    r"""(?:pass(?:word|wd|phrase)?|pwd|secret|token|api_?-?key|access_?-?key|auth_?-?key|private_?-?key|credentials?)
    [\w\]\["'-]{0,24}\s{0,4}(?:(?::[^=\n]{0,24}=|:?=)[\s(\\]{0,24}|(?:=>|:)\s{0,4})[bru]{0,2}$""",
    re.VERBOSE | re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"[{}<>$%*]|x{4,}|\.\.\.|example|changeme|placeholder|your[_-]|test|dummy|sample", re.I)


def secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where (start, end) a text seems to hold a key, a token or a password literal, in no order."""
    for literal, pattern in _TOKENS:
        if literal in text:
            yield from (match.span() for match in pattern.finditer(text))
    for match in _LITERAL.finditer(text):
        if _random(match[1]) and _ASSIGNED_TO.search(text, max(match.start() - 80, 0), match.start()):
            yield match.span(1)


def _random(literal: str) -> bool:
    """Tell a password from a word: `"user_password"` is a field's name, `"kX9#mQ2p"` is not."""
    if literal.isalpha() or re.fullmatch(r"[a-z_]+\d?", literal):
        return False
    kinds = sum(bool(re.search(kind, literal)) for kind in ("[a-z]", "[A-Z]", r"\d", r"[^\w.\-/:]"))
    if kinds < 2 or not re.search(r"\d|[^\w.\-/:]", literal) or _PLACEHOLDER.search(literal):
        return False
    return _entropy(literal) >= 2.5


def _entropy(text: str) -> float:
    """Return Shannon's entropy in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
