r"""Find the parts of a text that look like secrets, so that no model reads them.

The rules are those that common scanners use: token formats that name their issuer, private key blocks, and a value that
is assigned to a name like `password` or `api_key` and is random enough to be a secret. The value has quotes in most
languages. It has none in shell scripts, Dockerfiles and Makefiles, or inside strings and comments (`Password=...;` in a
connection string). In doubt, text is withheld: a missing chunk costs a little quality, but a key in a prompt may end up
in a file. The rules are applied to a whole file, because the first line of a long key is what identifies it.

The library detect-secrets was considered and not used: it passes each line through some twenty plugin objects, which is
about 100 times slower than this search, and the search has to run over every file of a workspace. To be fast, each rule
begins with a literal, which `in` or `find` searches for. Regular expressions match only the text around it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

# For each format of secret: a literal that every such secret contains, and a pattern for the format. To search for the
# literals with `str.find` is about a hundred times faster than to match one large pattern.
_TOKENS = tuple(
    (literal, re.compile(pattern))
    for literal, pattern in (
        # The match ends with the end mark. Without an end mark, it has the length of the longest key.
        ("PRIVATE KEY", r"(?s)-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?:.{0,20000}?-----END|.{0,20000})"),
        ("PuTTY-User-Key-File", r"(?s)PuTTY-User-Key-File-\d.{0,20000}?Private-MAC|PuTTY-User-Key-File-\d.{0,20000}"),
        ("AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
        *(
            (start, rf"(?<![A-Z0-9]){start}[A-Z0-9]{{16,17}}(?![A-Z0-9])")  # AWS
            for start in ("AKIA", "ASIA", "ABIA", "ACCA", "A3T")
        ),
        ("AccountKey=", r"AccountKey=[A-Za-z0-9+/=]{40,}"),  # Azure
        ("SharedAccessKey=", r"SharedAccessKey=[A-Za-z0-9+/=]{40,}"),
        ("sig=", r"[?&]sig=[A-Za-z0-9%+/=]{40,}"),
        ("AIza", r"\bAIza[\w-]{35}"),  # Google
        ("GOCSPX-", r"\bGOCSPX-[\w-]{20,}"),
        ("ya29.", r"\bya29\.[\w-]{20,}"),
        *((f"gh{kind}_", rf"\bgh{kind}_[A-Za-z0-9]{{36}}") for kind in "pousr"),  # GitHub
        ("github_pat_", r"\bgithub_pat_\w{22,}"),
        *(
            (f"gl{kind}-", rf"\bgl{kind}-[\w-]{{16,}}")  # GitLab
            for kind in ("pat", "dt", "ft", "rt", "soat", "ptt", "agent", "oas", "imt", "cbt", "ffct")
        ),
        ("GR1348941", r"\bGR1348941[\w-]{20,}"),
        ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),  # Slack
        ("xapp-", r"\bxapp-[A-Za-z0-9-]{20,}"),
        ("hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9_/-]{20,}"),
        ("/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d+/[\w-]{30,}"),
        ("k_live_", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),  # Stripe
        ("k_test_", r"\b[rs]k_test_[A-Za-z0-9]{16,}"),
        ("whsec_", r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
        ("sk-", r"\bsk-(?:ant-|proj-|or-)?[\w-]{32,}"),  # model providers
        ("T3BlbkFJ", r"[\w-]{0,100}T3BlbkFJ[\w-]+"),
        ("hf_", r"\bhf_[A-Za-z0-9]{30,}"),
        ("gsk_", r"\bgsk_[A-Za-z0-9]{40,}"),
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}"),  # package registries
        ("_auth", r"_auth(?:Token)?\s*=\s*[^\s$\"']{8,}"),
        ("pypi-AgE", r"pypi-AgE[\w-]{50,}"),
        ("oy2", r"\boy2[a-z0-9]{43}\b"),
        ("SG.", r"\bSG\.[\w-]{22}\.[\w-]{43}"),  # SendGrid
        ("-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),  # Mailchimp
        ("key-", r"\bkey-[0-9a-z]{32}\b"),  # Mailgun
        ("wilio", r"\b(?:AC|SK)[a-z0-9]{32}\b"),
        ("rtifactory", r"(?<![\w+/=])AP[\dA-F][A-Za-z0-9]{8,}(?![\w+/=])(?=[\s\"'&;,]|$)"),
        ("AKC", r"(?<![\w+/=])AKC[A-Za-z0-9]{10,}"),  # Artifactory
        ("sq0", r"\bsq0(?:csp|atp)-[\w-]{22,}"),  # Square
        ("EAAA", r"\bEAAA[\w-]{60}\b"),
        ("shp", r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}"),  # Shopify
        ("iscord", r"(?<![\w.-])[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])"),
        (":AA", r"\b\d{8,10}:AA[\w-]{33}\b"),  # Telegram
        ("_v1_", r"\bdo[opr]_v1_[a-f0-9]{64}"),  # DigitalOcean
        ("dapi", r"\bdapi[a-f0-9]{32}"),  # Databricks
        ("hvs.", r"\bhv[sb]\.[\w-]{24,}"),  # Vault
        ("dp.", r"\bdp\.(?:pt|st|ct|scim|audit)\.[A-Za-z0-9]{40,}"),  # Doppler
        ("glsa_", r"\bgl(?:c|sa)_[A-Za-z0-9+/=_]{32,}"),  # Grafana
        ("NRAK-", r"\bNRAK-[A-Z0-9]{27}"),  # New Relic
        ("sntry", r"\bsntry[su]_[A-Za-z0-9+/=_]{40,}"),  # Sentry
        ("ATATT3", r"\bATATT3[\w=-]{20,}"),  # Atlassian
        ("ATBB", r"\bATBB\w{20,}"),
        ("lin_api_", r"\blin_api_[A-Za-z0-9]{40}"),
        ("PMAK-", r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
        # JSON web token. A header has fewer than 1,000 characters. Without this limit, the rest of a long base64 text
        # would be scanned again from each "eyJ" in it.
        ("eyJ", r"\beyJ[\w+/=-]{10,1000}\.e[\w+/=-]{10,}(?:\.[\w+/=-]*)?"),
        ("://", r"""://[^/\s:@'"{}$<>%]{0,64}:[^/\s:@'"{}$<>]{4,128}@"""),  # a URL with a password
    )
)
# `_NAME` matches the names of secrets. Each of them contains at least one of these stems, in lower case.
_STEMS = ("pass", "pwd", "secret", "token", "credential", "bearer", "key", "auth", "connection")
_NAME = re.compile(
    r"""pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|bearer|connection_?string|apikey
    |(?:api|app|access|auth|private|account|signing|encryption|decryption|master|shared|service|storage|session|client
      |webhook|deploy|license|subscription|secret|admin|fernet|consumer)[_. -]?key
    |(?:aws|azure|gcp|hmac|jwt|cipher)[_.-]?\w{0,12}?key|(?<![a-z])auth(?![a-z])""",
    re.VERBOSE | re.IGNORECASE,
)
FARTHEST = 21_000  # maximum number of characters from the text that identifies a secret to the end of the secret
_AROUND = 20  # characters before and after a stem that are searched for the name that contains the stem
_REACH = 400  # characters after a name that are searched for its value
_STRING = r"""[a-zA-Z@$]{0,2}(["'`])(\S{6,200}?|(?:[A-Za-z0-9]{4}[ ]){2,7}[A-Za-z0-9]{4})\1"""
# Each of the next patterns matches the text after a name, up to and including the value. This pattern is for a value
# with quotes, in any language.
_QUOTED = re.compile(
    rf"""[\w.\]\[)"'-]{{0,24}}[?!]?[ \t]{{0,40}}\s{{0,4}}
    (?: (?::[^=\n]{{0,24}}=|[:?+!=]?={{1,3}})[\s(\[{{\\]{{0,40}}  # assigned, compared
      | (?:=>|<-|:)[\s(\[{{]{{0,40}}                        # a value in a mapping
      | (?:->|,|(?:\|\||\?\?|&&)=?|\bor\b)[\s(]{{0,4}}    # an argument, a default
      | \(\s{{0,4}}                                       # set_password("...")
      | (?<=\s)(?!`)                                    # #define PASSWORD "...", WITH PASSWORD '...'
    ){_STRING}""",
    re.VERBOSE,
)
# A default after an expression (`password: env.PASSWORD || "..."`), or the argument of a call that converts it
# (`password = String("...")`).
_COMPUTED = re.compile(
    rf"""[\w.]{{0,24}}[ \t]{{0,40}}(?::[^=\n]{{0,24}})?[:=]{{1,2}}>?[ \t]{{0,8}}
    (?: [^\n"'`;]{{1,80}}?(?:\|\||\?\?|\bor\b|\?:)\s{{0,8}}
      | [\w.:<>\[\] ]{{0,40}}?(?:String|string|Str|Secret\w{{0,9}}|from|Some|Field|decode|encode|quote|bytes|of)
        (?:\[\w{{1,12}}\])?\(\s{{0,8}}(?:default\s{{0,4}}=\s{{0,4}})?
    ){_STRING}""",
    re.VERBOSE,
)
# A declaration with the type after the name: `var password string = "..."`.
_TYPED = re.compile(r"""\w{0,24}[ \t]{1,4}[\w.*\[\]]{1,24}[ \t]{0,4}=[ \t]{0,4}(["'`])(\S{6,200}?)\1""")
_VALUE = r"""((?:\\[$!#&*;|]|[^\s"'`;&|()<>\[\]\\,]){6,200})"""
# The languages in which a value may follow its name without quotes, as `_BARE` matches it ("" is text of no known
# language).
_BARE_LANGUAGES = frozenset(("", "bash", "dockerfile", "makefile", "cmake"))
_BARE = re.compile(
    rf"""[\w.-]{{0,24}}(?:\s{{0,8}}(?:[:?+]{{0,2}}=|:(?=\s))(?:\\\n)?\s{{0,8}}\(?|[ \t]{{1,8}}){_VALUE}"""
)
# A value in the delimiters of Lua, Perl, TOML, YAML, XML or shells. It may be embedded in a file of any language.
_DELIMITED = re.compile(
    rf"""[\w.-]{{0,24}}["']?
    (?: [ \t]{{0,40}}(?:=>|:=|=|:)\s{{0,4}}
        (?:\[={{0,3}}\[|q{{1,2}}[(\[{{<|/!]|\"{{3}}|'{{3}}|[|>][+-]?\n)
      | [ \t]{{0,4}}<<<\s{{0,4}}["']?
      | >
    )\s{{0,40}}{_VALUE}""",
    re.VERBOSE,
)
# The value of an entry that has the name in another member: `- name: PASSWORD` and `value: ...`.
_MEMBER = re.compile(
    rf"""[\w.-]{{0,24}}["']?[ \t]{{0,4}}[,;]?\s{{0,40}}["']?[A-Za-z]{{0,12}}?(?:Value|value)["']?\s{{0,40}}
    [:=]>?\s{{0,4}}(?:["']|(?!\w+\}})){_VALUE}""",  # but not a type, such as `{value: string}` in a comment
    re.VERBOSE,
)
# Values without quotes in any language: after `${PASSWORD:-` (`_DEFAULT`), in a line of an environment file (`_LINE`),
# in an option of a command (`_OPTION`), or inside a string or a comment (`_WITHIN`).
_DEFAULT_BEFORE, _DEFAULT = re.compile(r"\$\{\w*$"), re.compile(r"""\w*:?[-=]([^}\s"']{6,200})""")
_LINE_BEFORE, _LINE = (
    re.compile(r"^[ \t]*(?:export[ \t]+)?[A-Z0-9_]*$"),
    re.compile(rf"[A-Z0-9_]*={_VALUE}[ \t]*(?:\n|\Z)"),
)
_OPTION_BEFORE = re.compile(r"(?<![\w-])--?[\w-]*$")
_OPTION = re.compile(rf"""[\w-]{{0,12}}["']?[=,\s]\s?["']?{_VALUE}""")
_WITHIN = re.compile(rf"""[\w-]{{0,24}}\s{{0,2}}[:=]\s{{0,2}}{_VALUE}""")
_AWS_NAME = re.compile(r"aws|secret|access", re.IGNORECASE)
_COMMENT = re.compile(r"(?:^|\s)(?:#|//|--|/?\*|;|%|<!--)")
# An AWS secret key has no prefix: only its length of 40 characters distinguishes it.
_AWS_SECRET = re.compile(r"""[\w\s.:=>"'(,-]{0,60}?(?<![A-Za-z0-9/+])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])""")
# Secrets that are identified by a command or a keyword instead of a name directly before the value. The group `sole` is
# a value without quotes, which must look random.
_SOLE = rf"(?P<sole>{_VALUE[1:-1]})"
_IN_CONTEXT = tuple(
    (literals, re.compile(pattern, re.IGNORECASE | re.VERBOSE | re.MULTILINE))
    for literals, pattern in (
        (
            ("identified", "IDENTIFIED", "Identified"),
            rf"""identified\s+(?:with\s+\S+\s+)?(?:by|as)\s+(?:password\s+)?(?:["']([^"'\n]{{4,200}})|{_SOLE})""",
        ),
        (
            ("variable",),
            rf"""variable\s+"[^"\n]*(?:{_NAME.pattern})[^"\n]*"\s*
            \{{[^{{}}]{{0,400}}?(?:\{{[^{{}}]{{0,200}}\}}[^{{}}]{{0,200}}?){{0,4}}?default\s*=\s*"([^"\n]{{6,200}})""",
        ),
        (
            ("uthorization",),
            r"""authorization["']?\]?\s*[:=,]\s*[a-z@$]{0,2}["'`]?(?:bearer|basic|token|apikey)\s+([\w.+/=~-]{8,})""",
        ),
        (("curl", "--user", "wget"), r"""(?<!\S)(?:-u|--user)[=\s]?\s*["']?[\w.@+-]+:([^\s"'@$]{6,})"""),
        (("mysql", "mariadb"), r"""\b(?:mysql|mariadb)[\w-]*\b[^\n]{0,120}?\s-p([^\s"'$]{6,})"""),
        (("sshpass",), r"""sshpass\s+-p\s*["']?([^\s"'$]{6,})"""),
        (("chpasswd",), r"""[\w.-]{1,32}:([^\s"'$:|]{4,200})["']?\s{0,8}\|\s{0,8}(?:sudo\s{1,8})?chpasswd"""),
        (
            ("-stdin", "sudo -S", "--passphrase-fd"),
            rf"""\b(?:echo|printf)\s{{1,8}}(?:-n\s{{1,8}})?["']?{_SOLE}["']?\s{{0,8}}\|[^\n]{{0,80}}
            (?:-stdin|sudo\s-S|--passphrase-fd)""",
        ),
        *(
            ((literal,), rf"""\b{command}\b[^\n|;]{{0,160}}?\s{option}\s{{0,4}}["']?{_SOLE}""")
            for literal, command, option in (
                ("login -", "login", r"-p[\s=]"),
                ("mongo", r"mongo\w*", r"-p[\s=]"),
                ("cqlsh ", "cqlsh", r"-p[\s=]"),
                ("sqlcmd ", "sqlcmd", r"-P[\s=]"),
                ("zip -", "(?:un)?zip", r"-P[\s=]"),
                ("ldap", r"ldap\w+", r"-w[\s=]"),
                ("redis-cli ", "redis-cli", r"-a[\s=]"),
                ("openssl ", "openssl", r"-k[\s=]"),
                ("vault login ", "vault\\slogin", ""),
            )
        ),
        (
            ("\ndefine ",),
            rf"""^define\s{{1,8}}\w{{0,24}}(?:{_NAME.pattern})\w{{0,24}}[ \t:=]{{0,8}}\n\s{{0,40}}{_SOLE}""",
        ),
    )
)
# Calls that take a password or a key as an argument without a name.
_CALLS = (
    "getConnection(", "new PDO(", "NetworkCredential(", "login(", "asicAuth(", "asic_auth(", "asic_auth ", "auth=(",
    "auth = (", "jwt.sign(", "jwt.verify(", "jwt.encode(", "jwt.decode(", "Fernet(", "ConvertTo-SecureString",
)  # fmt: skip
_ARGUMENTS = re.compile(r"""(?:[^()"'`]|(["'`])[^"'`\n]{0,200}\1|\([^()]{0,100}\)){0,200}""")
_ARGUMENT = re.compile(r"""(["'`])([^\s"'`]{8,200})\1""")

_PLACEHOLDER = re.compile(
    r"(?:^|:)\*|\*$|\$\{|\$\(|^\$\w+$|^\$env:|\{\{|^\{[\w.]*\}$|^<[^<>]+>$|^%\w+%?$|%\(|\*{3,}|x{4,}|\.\.\."
    r"|example|change_?me"
    r"|placeholder|your[_-]|dummy|sample|redacted|^test|test$|[_-]test|test[_-]|^\W+$",
    re.IGNORECASE,
)
_PATH = re.compile(r"(?:[~.]{0,2}/[\w./@-]+|[\w-]+(?:/[\w-]+)*\.(?:pem|key|txt|json|ya?ml|py|js|ts|go|sh|env|crt|cfg))")
_CODE = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+|[a-z_]+=\w+")  # `settings.PASSWORD`, `verbose=True`


def secret_spans(text: str, language: str = "") -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each part of a text that looks like a key, a token or a password, in no particular order.

    `language` is an id of `indexer.languages`, or "".
    """
    for literal, pattern in _TOKENS:
        if (first := text.find(literal)) >= 0:
            yield from (match.span() for match in pattern.finditer(text, max(first - _REACH, 0)))
    for literals, pattern in _IN_CONTEXT:
        if any(literal in text for literal in literals):
            for match in pattern.finditer(text):
                group = "sole" if match.lastgroup == "sole" else 1
                if _bare_random(match[group]) if group == "sole" else not _PLACEHOLDER.search(match[group]):
                    yield match.span(group)
    for call in _CALLS:
        at = text.find(call)
        while at >= 0:
            at += len(call)
            arguments = _ARGUMENTS.match(text, at, at + _REACH)
            for match in _ARGUMENT.finditer(text, at, arguments.end() if arguments else at):
                if "://" not in match[2] and _bare_random(match[2]):
                    yield match.span(2)
            at = text.find(call, at)
    for start, end in _names(text):
        yield from _values(text, start, end, language)


def _names(text: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of names to which a secret may be assigned."""
    lower = text.lower()
    if len(lower) != len(text):  # the lower case of some characters is two characters, which would move the offsets
        lower = "".join(low if len(low := character.lower()) == 1 else character for character in text)
    seen = -1
    stems = set[int]()
    for stem in _STEMS:
        at = lower.find(stem)
        while at >= 0:
            stems.add(at)
            at = lower.find(stem, at + len(stem))
    for at in sorted(stems):
        for match in _NAME.finditer(text, max(at - _AROUND, 0), at + _AROUND):
            if match.end() > max(at, seen):
                seen = match.end()
                yield match.span()


def _values(text: str, start: int, end: int, language: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of the values that are assigned to a name and are random enough to be secrets."""
    reach = end + _REACH
    for pattern in (_QUOTED, _TYPED, _COMPUTED):
        if (match := pattern.match(text, end, reach)) and _random(match[2]):
            yield match.span(2)
            break
    if _AWS_NAME.search(text, start, end) and (match := _AWS_SECRET.match(text, end, reach)) and _random(match[1]):
        yield match.span(1)
    line = max(text.rfind("\n", max(start - _REACH, 0), start) + 1, start - _REACH, 0)
    before = text[line:start]
    candidates = [_DELIMITED, _MEMBER, *([_BARE] if language in _BARE_LANGUAGES else [])]
    if _DEFAULT_BEFORE.search(before):
        candidates.append(_DEFAULT)
    if _OPTION_BEFORE.search(before):
        candidates.append(_OPTION)
    if text[start:end].isupper() and _LINE_BEFORE.search(before):
        candidates.append(_LINE)
    if any(before.count(quote) % 2 for quote in "\"'`") or _COMMENT.search(before):
        candidates.append(_WITHIN)
    for pattern in candidates:
        if (match := pattern.match(text, end, reach)) and _bare_random(match[1]):
            yield match.span(1)


def _bare_random(value: str) -> bool:
    """Return whether a value without quotes is random and is not a name, a path or a call."""
    value = value.rstrip(".:")
    return len(value) >= 6 and not _PATH.fullmatch(value) and not _CODE.fullmatch(value) and _random(value)


def _random(literal: str) -> bool:
    """Return whether a value looks random: `"user_password"` is the name of a field, `"kX9#mQ2p"` a password."""
    if literal.isalpha() or re.fullmatch(r"[a-z_]+|[A-Z_]+", literal):
        return False
    if re.fullmatch(r"(?:[a-z_]+|[A-Z_]+)\d", literal) and ("_" in literal or _NAME.search(literal)):
        return False  # `"password2"` is the name of a second field for a password
    kinds = sum(bool(re.search(kind, literal)) for kind in ("[a-z]", "[A-Z]", r"\d", r"[^\w.\-/:]"))
    if kinds < 2 or not re.search(r"\d|[^\w.\-/:]", literal) or _PLACEHOLDER.search(literal):
        return False
    return _entropy(literal) >= 2.5


def _entropy(text: str) -> float:
    """Return the Shannon entropy of the characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
