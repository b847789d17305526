"""The shaper reads a region around the cursor. In it, the same brackets and quotes must be open as in the file.

The tests compare what is open at the cursor in the region and in the whole file.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.completion.shaping.region import region
from policy.completion.shaping.scan import scan
from tests.policy.snippets import SNIPPETS


@pytest.mark.parametrize("language", SNIPPETS)
@given(st.data())
def test_what_is_open_at_the_cursor(language: str, data: st.DataObject) -> None:
    copies, start = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 500))
    text = (SNIPPETS[language] * copies)[start:]  # the text may start within a block
    cursor = data.draw(st.integers(0, len(text)))
    near = data.draw(st.integers(60, 300))
    left = region(text[:cursor], text[cursor:], language, near).left
    assert scan(left, language).stack == scan(text[:cursor], language).stack


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("rust", 'fn f() {\n    let s = r#"{\n"\n"#;\n' + "    g();\n" * 1_200 + "    h(‸);\n}\n"),
        ("javascript", "f(a,\n\tb, {\n\tc: `\n{\n`, d() {\n" + "\t\te();\n" * 1_200 + "\t\th(‸);\n}})\n"),
        ("javascript", "const a = `${\n" + "  e(),\n" * 1_200 + "  h(‸),\n}`\n"),
        ("tsx", "const a = (\n<A\n  b\n>\n" + "  <B>it's</B>\n" * 1_200 + "  <C d={‸} />\n</A>\n);\n"),
        ("go", "package p\n\nfunc f() {\nif a {\n" + "\tg()\n" * 1_200 + "\th(‸)\n}\n}\n"),
        ("c", "int f()\n{\n#if A\n  if (a) {\n#endif\n" + "    g();\n" * 1_200 + "    h(‸);\n}\n"),
        ("java", "class A {\n" + "  int a; // it's (\n" * 1_200 + "  int b = h(‸);\n}\n"),
    ],
)
def test_what_is_open_in_a_long_file(language: str, source: str) -> None:
    prefix, suffix = source.split("‸")
    found = region(prefix, suffix, language)
    assert len(found.left) < len(prefix) / 2
    assert scan(found.left, language).stack == scan(prefix, language).stack
