"""Which part of a generated text is shown.

`‸` is the cursor. `…` after a generated text means that the token limit ended it.
"""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from policy.completion.shape import Shaper


def shaped(source: str, said: str, language: str = "python", *, multiline: bool = True) -> str:
    """Return what is shown of the text `said`, which is generated at the cursor `‸` in `source`.

    Fail if the shaper, which receives one character at a time, detects an end after which another text is shown.
    """
    prefix, suffix = source.split("‸")
    shaper = Shaper(Cursor("/w/file", prefix, suffix, language), multiline=multiline)
    complete = not said.endswith("…")
    said = said.removesuffix("…")
    whole = shaper.finish(said, complete=complete).text
    for end in range(1, len(said) + 1):
        if shaper.decided(said[:end]):
            early = shaper.finish(said[:end], complete=False).text
            assert early == whole, f"decided too early, at {said[:end]!r}"
            break
    return whole


@pytest.mark.parametrize(
    ("source", "said", "shown"),
    [
        # the shown text ends at the end of its line
        ("x = 1\ny = ‸", "x + 1\nz = 2\n", "x + 1"),
        ("import os‸", "\nimport sys\n", ""),
        ("def f(x):\n    y = x\n    ‸\n", "return y\n\n\ndef g():\n    pass\n", "return y"),
        ("# about ‸\nx = 1\n", "the (open\nbracket", "the (open"),
        # the shown text ends at the end of its block
        ("def f(x):‸", "\n    y = x\n    return y\n\n\ndef g():\n", "\n    y = x\n    return y"),
        ("def f(x):\n    ‸", "y = x\n    return y\n\n\ndef g():\n", "y = x\n    return y"),
        ("def f(x‸", "):\n    return x\n\nf(1)\n", "):\n    return x"),
        ("    for x in xs:\n        ‸\n", "print(x)\n    return 1\n", "print(x)"),
        ("if x: ‸", "return 1\nelse:\n", "return 1"),
        ("f = lambda x: ‸", "x + 1\ng = 2\n", "x + 1"),
        ("x = {'a': ‸", "1,\n     'b': 2}\ny = 3\n", "1,\n     'b': 2}"),
        ("print(‸", "a,\n      b)\nprint(c)\n", "a,\n      b)"),
        ("print(‸", "f'{a}',\n      b)\nprint(c)\n", "f'{a}',\n      b)"),
        # text after the cursor is not repeated
        ("print(‸)\n", "a, b)\nprint(c)\n", "a, b"),
        ("print(‸)\n", "f(a))\n", "f(a)"),
        ("print(\n    ‸\n)\n", "a,\n)\n", "a,"),
        ('x = "‸"\n', 'hello"\ny', "hello"),
        ("total = ‸ + b\n", "a + b\n", "a"),
        ("if ‸:\n    pass\n", "x > 0:\n    y\n", "x > 0"),
        ("def f(a):\n    ‸\n    return b\n", "return b\n", ""),
        ("def f(a):\n    x = 1‸\n", "\n", ""),
        # neither text before the cursor nor the generated text itself is repeated
        ("self.width = width\n‸", "self.width = width\n", ""),
        ("def f():\n    ‸", "print('one')\n    print('one')\n    print('one')\n", "print('one')"),
        ("x = ‸", "abcde abcde abcde abcde abcde abcde …", ""),
        # an incomplete statement is not shown
        ("x = f(‸", "aaa, bbb, ccc…", ""),
        ("def f():\n    ‸", "x = 1\n    y = g(1,\n        2…", "x = 1"),
        # a text that repeats only a part of the word after the cursor is not cut
        ("pri‸nt(x)\n", "nt", "nt"),
        # indentation
        ("def f(x):\n    y = x\n    ‸", "    return y\n", "return y"),
        ("x = ‸", " 5\n", "5"),
        ("def f(x):\n‸", "    return x\n\ng()\n", "    return x"),
    ],
)
def test_python(source: str, said: str, shown: str) -> None:
    assert shaped(source, said) == shown


@pytest.mark.parametrize(
    ("language", "source", "said", "shown"),
    [
        ("javascript", "function f(x) {‸", "\n  return x;\n}\n\nf(1);\n", "\n  return x;\n}"),
        ("javascript", "function f(x) {\n  ‸\n}\n", "return x;\n}\nf(2);\n", "return x;"),
        ("javascript", "const s = `${a} ‸`;\n", "{ b`;\nx", "{ b"),
        ("javascript", "items.forEach((x) => {‸", "\n  use(x);\n});\ndone();\n", "\n  use(x);\n});"),
        ("javascript", "f(‸", "`a ${b}`,\n  c);\ng();\n", "`a ${b}`,\n  c);"),
        ("typescript", "const a: number = ‸", "1;\nconst b = 2;\n", "1;"),
        ("rust", "fn f<'a>(x: &'a str) -> &'a str {\n    ‸", "x\n}\n\nfn g() {}\n", "x\n}"),
        ("go", "func f(x int) int {\n\t‸\n}\n", "if x > 0 {\n\t\treturn 1\n\t}\n\treturn x\n}\n",
         "if x > 0 {\n\t\treturn 1\n\t}\n\treturn x"),
        ("c", "char c = '{';\nint x = ‸", "1;\nint y;\n", "1;"),
        ("ruby", "def area(w, h)\n  ‸", "w * h\nend\n\nputs 1\n", "w * h\nend"),
        ("lua", "function area(w, h)‸", "\n  return w * h\nend\nprint(1)\n", "\n  return w * h\nend"),
        ("", "key: ‸", "value\nother: 1\n", "value"),
    ],
)  # fmt: skip
def test_other_languages(language: str, source: str, said: str, shown: str) -> None:
    assert shaped(source, said, language) == shown


CHILDREN = "function A() {\n  return (\n    <View>\n      ‸\n    </View>\n  );\n}\n"
RETURNED = "function A() {\n  return (\n    ‸\n  );\n}\n"
AT_THE_END = "function A() {\n  return (\n    <View>\n      ‸"


@pytest.mark.parametrize(
    ("source", "said", "shown"),
    [
        # a whole element
        (RETURNED, "<div>\n      <h1>A</h1>\n      <B />\n    </div>\n  );\n}\n",
         "<div>\n      <h1>A</h1>\n      <B />\n    </div>"),
        (RETURNED, "<>\n      <B />\n    </>\n  );\n}\n", "<>\n      <B />\n    </>"),
        (RETURNED, "<A.B\n      c={`d ${e}`}\n      f=\"g\n        h\"\n    />\n  );\n}\n",
         "<A.B\n      c={`d ${e}`}\n      f=\"g\n        h\"\n    />"),
        (RETURNED, "<A<B> c>\n      d\n    </A>\n  );\n}\n", "<A<B> c>\n      d\n    </A>"),
        ("function A() {\n  return (‸", "\n    <p>\n      a\n    </p>\n  );\n}\n\nf();\n",
         "\n    <p>\n      a\n    </p>\n  );"),
        ("const a = ‸\n", "<p>\n  b\n</p>;\nf();\n", "<p>\n  b\n</p>;"),
        ("const a = (\n‸\n);\n", "<p>\n  b\n</p>\n);\n", "<p>\n  b\n</p>"),
        (CHILDREN, "{b.map((c) => (\n        <p key={c}>\n          {c}\n        </p>\n      ))}\n    </View>\n",
         "{b.map((c) => (\n        <p key={c}>\n          {c}\n        </p>\n      ))}"),
        ("const a = <B>\n‸", "<A<B<string>> c={d} />\n</B>;\n", "<A<B<string>> c={d} />\n</B>;"),
        ("const a = <B>\n‸", "<A<{ b: B<C<d>> }> e={f} />\n</B>;\n", "<A<{ b: B<C<d>> }> e={f} />\n</B>;"),
        # an element that begins like the type of a generic function
        (RETURNED, "<Label>(optional)</Label>\n  );\n}\n", "<Label>(optional)</Label>"),
        ("const a = ‸\n", "<Label>(optional)</Label>;\nf();\n", "<Label>(optional)</Label>;"),
        (CHILDREN, "{a && <Label>(optional)</Label>}\n    </View>\n", "{a && <Label>(optional)</Label>}"),
        # an element that begins after one space, or after a comment
        ("const a = (\n ‸\n);\n", "<p>\n  b\n </p>\n);\n", "<p>\n  b\n </p>"),
        ("const a = b ? /* c */ ‸ : null;\n", "<p>d</p> : null;\n", "<p>d</p>"),
        # the content of an element whose closing tag is below
        (CHILDREN, "<b>c</b>\n      <p>\n        d\n      </p>\n    </View>\n  );\n}\n",
         "<b>c</b>\n      <p>\n        d\n      </p>"),
        (CHILDREN, "<View>\n        <View>\n          <B />\n        </View>\n      </View>\n    </View>\n  );\n",
         "<View>\n        <View>\n          <B />\n        </View>\n      </View>"),
        ("const a = (\n  <p>‸\n  </p>\n);\n", "\n    <b />\n    <c />\n  </p>\n);\n", "\n    <b />\n    <c />"),
        ("const a = (\n  <p>‸\n  </p>\n);\n", "b</p>\n);\n", "b"),
        # the content of an element without a closing tag
        (AT_THE_END, "<b>c</b>\n    </View>\n  );\n}\n", "<b>c</b>\n    </View>"),
        (AT_THE_END.replace("‸", "<b />\n    ‸"), "</View>\n  );\n}\n", "</View>"),
        # attributes
        ("const a = <B c=‸ />;\n", "{d} />;\n", "{d}"),
        ("const a = (\n  <B\n    ‸\n  />\n);\n", "c={1}\n    d=\"e\"\n  />\n);\n", "c={1}\n    d=\"e\""),
        ("const a = (\n  <B‸\n);\n", "\n    c={1}\n    d\n  />\n);\n", "\n    c={1}\n    d\n  />"),
        ("const a = (\n  <B ‸\n);\n", "c>\n    d\n  </B>\n);\n", "c>\n    d\n  </B>"),
        # the cursor is within a tag's name
        ("const a = (\n  <‸\n);\n", "Bcd>\n    e\n  </Bcd>\n);\n", "Bcd>\n    e\n  </Bcd>"),
        ("const a = (\n  <B‸\n);\n", "cd>\n    e\n  </Bcd>\n);\n", "cd>\n    e\n  </Bcd>"),
        ("const a = (\n  <b>c</‸\n);\n", "b>\n);\n", "b>"),
        ("const a = (\n  <b>c</b‸>\n);\n", "d, e\n", ""),
        # quotes, brackets and slashes in the content are text
        (CHILDREN, "<p>the users' names</p>\n      <b>(it's</b>\n    </View>\n",
         "<p>the users' names</p>\n      <b>(it's</b>"),
        (CHILDREN.replace("‸", "<p>a's) https://b.org</p>\n      ‸"), "<p>\n        &lt;\n      </p>\n    </View>\n",
         "<p>\n        &lt;\n      </p>"),
        # an element stays balanced
        (CHILDREN, "<b />\n      <p>c\n    </View>\n  );\n}\n", "<b />"),
        (CHILDREN, "<b />\n      <p>c</i>\n    </View>\n  );\n}\n", "<b />"),
        (CHILDREN, "<b>\n        <p>c…", ""),
        (RETURNED, "<View>a</View></View>\n  );\n}\n", "<View>a</View>"),
        # `<` that begins no element
        ("if (‸) {\n  f();\n}\n", "a < b && c > d) {\n", "a < b && c > d"),
        ("const [a, b] = ‸\n", "useState<C>({\n  d: 1,\n});\nf();\n", "useState<C>({\n  d: 1,\n});"),
        ("const f = ‸\n", "<T,>(x: T) => {\n  return x;\n};\nf();\n", "<T,>(x: T) => {\n  return x;\n};"),
        ("const f = <T ‸\n", "extends A>(x: T) => {\n  return x;\n};\n", "extends A>(x: T) => {\n  return x;\n};"),
        ("const f = <T ‸>(x: T) => x;\n", "extends A>(x: T) => x;\n", "extends A"),
        ("‸\n", "type A = <T>(x: T) => {\n  b: T;\n};\nf();\n", "type A = <T>(x: T) => {\n  b: T;\n};"),
    ],
)  # fmt: skip
def test_elements(source: str, said: str, shown: str) -> None:
    assert shaped(source, said, "tsx") == shown


@pytest.mark.parametrize(
    ("language", "source", "said", "shown"),
    [
        # the editor has closed the header of a statement, whose body does not exist yet
        ("c", "void f(int a) {\n    if (‸)\n}\n", "a > 0) {\n        g();\n    }\n}\n", "a > 0"),
        ("c", "void f(int a) {\n    for (‸)\n}\n", "int i = 0; i < a; i++) {\n        g();\n    }\n}\n",
         "int i = 0; i < a; i++"),
        ("cpp", "void f(int a) {\n    for (‸)\n}\n", "const auto& x : xs) {\n        g(x);\n    }\n}\n",
         "const auto& x : xs"),
        ("javascript", "function f(a) {\n  if (‸)\n}\n", "a) {\n    b();\n  }\n}\n", "a"),
        # the editor has closed a bracket in a string or comment
        ("bash", 'cp "${‸}" b\n', 'SRC}/a" "${DST}"\n', "SRC"),
        ("python", 'x = "{‸}".format(a)\n', 'name}, hi".format(a)\n', "name"),
        ("python", "f()  # see g(‸)\n", "x) and h(y)\n", "x"),
        ("javascript", 'a.b = "translate(‸)";\n', '10px, 5px) scale(2)";\n', "10px, 5px"),
        # a string is not cut within an expression
        ("bash", 'echo "‸"\n', 'x: ${x:-"a b"} done"\n', "x:"),
        ("php", '<?php\necho "‸";\n', 'a {$b["c"]}";\n', "a"),
        ("groovy", 'x = "‸"\n', '${a["b"]}-c"\n', '${a["b"]}-c'),
        # a string that the editor has closed is not opened again
        ("ruby", "get '/‸', to: 'a#b'\n", "users/:id', to: 'users#show'\n", "users/:id"),
        # the closer of a bracket may begin the line below
        ("c", "void f(void) {\n    if (‸\n        && b) {\n    }\n}\n", "a\n        && b) {\n", "a"),
        # brackets and quotes in a comment are text
        ("yaml", "# ‸\na: 1\n", "Don't (do\na: 1\n", "Don't (do"),
        ("yaml", "a: 1 # it's ‸\nb: \"c\"\n", 'ok "now\nb:\n', 'ok "now'),
        ("yaml", "a: ‸\n", "b#c\nd: 1\n", "b#c"),
        ("toml", "# ‸\na = 1\n", "Don't (do\na = 1\n", "Don't (do"),
        # a label needs a statement
        ("swift", "switch x {\ncase .a:\n    f()\n‸\n}\n", "case .b:\n    g(y)\n}\n", "case .b:\n    g(y)"),
    ],
)  # fmt: skip
def test_texts_that_a_user_wants_to_see(language: str, source: str, said: str, shown: str) -> None:
    assert shaped(source, said, language) == shown


def test_one_line_if_set() -> None:
    assert shaped("def f(x‸", "):\n    return x\n", multiline=False) == "):"


@pytest.mark.parametrize(
    ("source", "scope"),
    [
        ("def f():‸\n", "block"),
        ("def f():\n    ‸\n", "block"),
        ("def f():\n    x = 1\n    ‸\n", "line"),
        ("x = {'a': ‸}\n", "line"),
        ("# TODO:‸\n", "line"),
        ('"""Says:\n    ‸\n"""\n', "line"),
        ("naïve = 'é'\ndef f():\n    ‸\n", "block"),
    ],
)
def test_scope(source: str, scope: str) -> None:
    prefix, suffix = source.split("‸")
    assert Shaper(Cursor("", prefix, suffix, "python")).scope == scope


@pytest.mark.parametrize(
    ("language", "source", "said", "shown"),
    [
        ("python", "def f(‸", "x):\n    return x\n\n\n", "x):"),
        ("python", "if a and ‸", "b:\n    return 1\n", "b:"),
        ("python", "x = {‸", "'a': 1,\n     'b': 2}\ny = 3\n", "'a': 1,\n     'b': 2}"),  # a dictionary is no block
        ("python", "    y = 1\n    ‸", "for x in xs:\n        f(x)\n    y\n", "for x in xs:\n        f(x)"),
        ("python", "def f(x):‸", "\n    y = x\n    return y\n\n\ndef g():\n", "\n    y = x\n    return y"),
        ("javascript", "function f(‸", "x) {\n  return x;\n}\n", "x) {"),
        ("javascript", "f(x => {‸", "\n  return x;\n});\ng();\n", "\n  return x;\n});"),
    ],
)
def test_without_bodies_a_line_ends_where_it_opens_a_block(language: str, source: str, said: str, shown: str) -> None:
    prefix, suffix = source.split("‸")
    shaper = Shaper(Cursor("", prefix, suffix, language), bodies=False)
    assert shaper.decided(said)
    assert shaper.finish(said, complete=False).text == shown


@pytest.mark.parametrize(
    ("source", "said", "shown"),
    [
        (
            "    fields = {}\n    ‸\n        key = read()\n        fields[key] = 1\n",
            "for _ in x:\n        key = read()\n",
            "for _ in x:",
        ),
        ("    a()\n    ‸\n    close_file()\n", "close_file()\n", ""),
        ("open_file(\n    ‸\n    second=2,\n)\n", "first=1,\n    second=2,\n", "first=1,"),
    ],
)
def test_the_generation_ends_at_the_first_line_that_is_below_already(source: str, said: str, shown: str) -> None:
    prefix, suffix = source.split("‸")
    shaper = Shaper(Cursor("", prefix, suffix, "python"))
    assert not shaper.decided(said[:-1]), "the line may still become another one"
    assert shaper.decided(said)
    for text in (said, said + prefix[-4:] + "more()\n"):
        assert shaper.finish(text, complete=False).text == shown


def test_a_long_block_ends_at_a_statement() -> None:
    said = "".join(f"    step_{number}(\n        {number})\n" for number in range(20))
    shown = shaped("def f():\n‸", said)
    assert shown.count("\n") <= 12
    assert shown.endswith(")")
