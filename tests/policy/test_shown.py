"""A shown text leaves brackets balanced, repeats no line, and adds no syntax error to the file. `‸` is the cursor."""

from __future__ import annotations

import pytest

from benchmarks.shown import errors
from indexer.languages import LANGUAGES
from tests.policy.accepting import accept

NOTHING = ""


def inside(opening: str, line: str, closing: str) -> str:
    """Return a source with many lines between `opening` and `closing`, and with the cursor far from both."""
    return opening + line * 1_200 + "a‸b\n" + "c\n" * 700 + closing


@pytest.mark.parametrize(
    ("language", "source", "written", "shown"),
    [
        # a bracket that is closed right of the cursor is not closed again
        ("python", "r = fetch(‸, timeout=10)\nprint(r)\n", "url, headers=auth)\n", "url, headers=auth"),
        ("python", "d = {'a': ‸, 'b': 2}\n", "1}\n", "1"),
        ("typescript", "const ids = rows.map((row) => ‸, 10);\n", "row.id);\n", "row.id"),
        ("c", "int f(int n) {\n    if (n > ‸ && ready(n)) {\n        return 1;\n    }\n    return 0;\n}\n",
         "limit) {\n", "limit"),
        ("rust", "fn f() {\n    let x = vec![‸];\n}\n", "1, 2];\n", "1, 2"),
        ("go", "package p\n\nfunc f() {\n\tg(map[string]int{‸})\n}\n", "\"a\": 1})\n}\n", "\"a\": 1"),
        ("java", "class A {\n    void f() {\n        g(h(‸), 1);\n    }\n}\n", "x), 2);\n", "x"),
        ("javascript", "foo(‸);\n", "f(a);\n", "f(a)"),
        ("javascript", "foo(‸)\n", "a + b) + (c", "a + b"),
        ("ruby", "x = [1, ‸].map { |y| y }\n", "2].sum\n", "2"),
        ("kotlin", "fun f() {\n    g(listOf(‸))\n}\n", "1, 2))\n}\n", "1, 2"),
        # a bracket that is not closed right of the cursor is closed by the text
        ("python", "x = outer(inner(1‸)\n", "))\n", ")"),
        ("javascript", "function f(x) {\n  if (x) {\n    a();\n  ‸\n}\n\nf(1);\n", "}\n}\n\nf(1);\n", "}"),
        ("c", "int f(void) {\n    while (1) {\n        g();\n    ‸\n}\n", "}\n}\n", "}"),
        ("go", "package p\n\nfunc f() {\n\tg(func() {\n\t\th()\n\t‸\n}\n", "})\n}\n", "})"),
        ("swift", "func f() {\n    if a {\n        g()\n    ‸\n}\n", "}\n}\n", "}"),
        ("ruby", "def f\n  if a\n    g\n  ‸\nend\n", "end\nend\n", "end"),
        ("lua", "function f()\n  if a then\n    g()\n  ‸\nend\n", "end\nend\n", "end"),
        ("bash", "f() {\n  if a; then\n    g\n  ‸\n}\n", "fi\n}\n", "fi"),
        # closing words and lines that are already below are not repeated
        ("ruby", "class Cart\n  def total\n    ‸\n  end\n\n  def size\n    @items.size\n  end\nend\n",
         "@items.sum(&:price)\n  end\n\n  def size\n", "@items.sum(&:price)"),
        ("ruby", "def total\n  ‸\nend\n\nputs 1\n", "1\nend\n", "1"),
        ("lua", "local function f(x)\n  ‸\nend\n\nlocal function g() return 1 end\n",
         "return x + 1\nend\n\nlocal function g()", "return x + 1"),
        ("lua", "repeat\n  ‸\nuntil done\n", "step()\nuntil done\n", "step()"),
        ("bash", "if a; then\n  ‸\nfi\necho b\n", "echo a\nfi\necho b\n", "echo a"),
        ("bash", "for x in a b; do\n  ‸\ndone\n", "echo $x\ndone\n", "echo $x"),
        ("bash", "case $x in\n  a)\n    ‸\n    ;;\nesac\n", "echo a\n    ;;\nesac\n", "echo a"),
        ("tsx", "const a = (\n  <div>\n    ‸\n  </div>\n);\n", "<b>x</b>\n  </div>\n);\n", "<b>x</b>"),
        ("python", "def f():\n    ‸\n\n\ndef g():\n    pass\n", "return 1\n\n\ndef g():\n", "return 1"),
        ("python", "def f(a):\n    ‸\n    return b\n", "return b\n", NOTHING),
        # the text does not end the string around the cursor, and leaves no string open
        ("python", 'say("‸")\n', 'she said \\"hi\\" to me")\n', 'she said \\"hi\\" to me'),
        ("python", 'log(‸"done")\n', 'level="info", ', 'level="info", '),
        ("python", 'log(‸"done")\n', '"done")\n', NOTHING),
        ("python", "x = r'‸'\n", "a\\'b'\n", "a\\'b"),
        ("python", 'x = f"{‸}"\n', 'name}"\n', "name"),
        ("python", 'x = f"{a[‸]}"\n', "0]}\"\n", "0"),
        ("python", 'def f():\n    """‸"""\n', 'Do it."""\n    pass\n', "Do it."),
        ("python", "x = ‸\n", "\"it's\"\n", "\"it's\""),
        ("python", "x = '‸\n", "abc'\n", "abc'"),
        ("javascript", "const s = `a ${‸} b`;\n", "x} b`;\n", "x"),
        ("javascript", "const s = `‸`;\n", "a ${x}`;\n", "a ${x}"),
        ("rust", "fn f() {\n    println!(\"‸\", x);\n}\n", "{}\", y);\n", "{}"),
        ("csharp", "class A\n{\n    string F() { return $\"{‸}\"; }\n}\n", "x}\"; }\n", "x"),
        ("swift", 'let s = "a \\(‸) b"\n', "x) b\"\n", "x"),
        ("kotlin", 'val s = "a ${‸} b"\n', "x} b\"\n", "x"),
        ("ruby", 'puts "a #{‸} b"\n', "x} b\"\n", "x"),
        ("bash", 'echo "a $(‸) b"\n', "ls) b\"\n", "ls"),
        ("go", "package p\n\nvar s = `‸`\n", "a\"b`\n", "a\"b"),
        # text right of the cursor is not repeated
        ("javascript", "total = ‸ + tax;\n", "price + tax;\n", "price"),
        ("javascript", "f(a, ‸, last);\n", "b, las", "b"),
        ("python", "return [x for x in ‸ if x]\n", "xs if x]\n", "xs"),
        ("swift", "let a = b.‸() {\n}\n", "run() {\n", "run"),
        ("c", "int x = ‸;\n", "1;\n", "1"),
        # a repetition is shown where it is plausible, as in a table
        ("python", "table = [‸\n]\n", "0x00, 0x00, 0x00, 0x00,\n", "0x00, 0x00, 0x00, 0x00,"),
        ("c", "int t[] = {\n    0xff, 0xff, 0xff, 0xff,\n    ‸\n};\n", "0xff, 0xff, 0xff, 0xff,\n};\n",
         "0xff, 0xff, 0xff, 0xff,"),
        ("python", "x = ‸", "abcde abcde abcde abcde abcde abcde", NOTHING),
        ("python", "x = ‸\n", "'" * 300, NOTHING),
        ("javascript", "function f() {\n  ‸\n}\n", "a();\n  " * 50, "a();"),
        ("javascript", "function f() {\n  ‸\n}\n", "a();\n  b();\n  a();\n}\n", "a();\n  b();\n  a();"),
        # incomplete code may stay incomplete
        ("python", "foo(‸", "a, b", "a, b"),
        ("c", "int f(‸", "int a) {\n", "int a) {"),
        ("go", "package p\n\nfunc f() {\n\tif a {\n\t\tg(‸\n", "x, y)\n", "x, y)"),
        # a closing bracket matches the kind and the nesting of the opening one
        ("cpp", "void g() {\n  auto f = ‸()](int x) { return x; };\n}\n", "[self = weak}", "[self = weak"),
        ("cpp", "void g() {\n  auto f = ‸()](int x) { return x; };\n}\n" + "void h() {\n  i(1);\n}\n" * 200,
         "[self = weak}", "[self = weak"),
        ("javascript", "foo(bar[‸], baz);\n", "i]) {\n", "i"),
        ("cpp", "std::map<int, ‸> m;\n", "std::vector<int>> m;\n", "std::vector<int>"),
        ("kotlin", "val m: Map<Int, ‸> = mapOf()\n", "List<Int>> = mapOf()\n", "List<Int>"),
        ("rust", "fn f<T: ‸>(x: T) {}\n", "Into<String>>(x: T) {}\n", "Into<String>"),
        ("javascript", "items.forEach(item => {‸});\n", " console.log(item); });\n", " console.log(item); "),
        ("typescript", "const m: Map<string, Array<‸>> = new Map();\n", "number>> = new Map();\n", "number"),
        ("python", "x = {**base, ‸}\n", "'k': [1, 2]}\n", "'k': [1, 2]"),
        ("tsx", "const a = <A b={‸} c />;\n", "() => f({ x: 1 })} c />;\n", "() => f({ x: 1 })"),
        # within a string, the bracket that closes an expression is not shown as text
        ("typescript", "throw new Error(`bad ${‸}`);\n", "JSON.stringify({ a: 1 })}`);\n", "JSON.stringify({ a: 1 })"),
        ("bash", 'x="$(‸)"\n', 'cat "$f")"\n', 'cat "$f"'),
        ("bash", 'echo "${x:-‸}"\n', '$(pwd)}"\n', "$(pwd)"),
        ("ruby", 'puts "#{h[‸]}"\n', ':a]}"\n', ":a"),
        # strings of all kinds
        ("python", "x = rb'‸'\n", "\\d+'\n", "\\d+"),
        ("python", "x = f'{‸!r:>{w}}'\n", "name!r}'\n", "name"),
        ("python", "x = f\"{d['‸']}\"\n", "key']}\"\n", "key"),
        ("python", "x = \'\'\'‸\'\'\'\n", "it's \"x\"\'\'\'\n", "it's \"x\""),
        ("python", "d = {‸\"b\": 2}\n", '"a": 1, ', '"a": 1, '),
        ("javascript", "const s = 'it\\'s ‸';\n", "\\'ok\\'';\n", "\\'ok\\'"),
        ("javascript", "const s = `a ${b ? `‸` : ''} c`;\n", "x${y}` : ''} c`;\n", "x${y}"),
        ("csharp", 'class A { string S = @"‸"; }\n', 'C:\\dir\\"; }\n', "C:\\dir\\"),
        ("swift", 'let s = """\n  a ‸\n  """\n', '\\(b) "c"\n  """\n', '\\(b) "c"'),
        # the text left of the cursor decides whether a quote or a slash in the text begins a string or a pattern
        ("javascript", "x.replace(‸, '')\n", "/[\"'(]/g, '')\n", "/[\"'(]/g"),
        ("cpp", "auto n = 1'000‸;\n", "'000;\n", "'000"),
        ("python", "x = f‸\n", "\"{a['b']}\"\n", "\"{a['b']}\""),
        ("javascript", "const r = s.match(‸);\n", "/^(\\d+)\\)$/);\n", "/^(\\d+)\\)$/"),
        # in a string, two characters can stand for one, such as `{{`
        ("python", 'x = f"{a} ‸"\n', 'and {b:>10} {{c}}"\n', "and {b:>10} {{c}}"),
        ("python", "x = rf'‸'\n", "\\d{{{n}}}'\n", "\\d{{{n}}}"),
        ("csharp", 'class A { string S = @"‸"; }\n', 'a ""b"" c"; }\n', 'a ""b"" c'),
        # quotes within a string or a comment stay balanced too
        ("go", 'package p\n\ntype A struct {\n\tB int `json:"‸"`\n}\n', 'b,omitempty"`\n}\n', "b,omitempty"),
        ("python", 'x = 1  # the "‸"\n', 'name"\n', "name"),
        ("python", 'x = 1  # as f"‸"\n', 'a" or f"b"\n', 'a" or f"b'),
        ("python", "x = 'a \"‸\" b'\n", "it's\" b'\n", "it"),
        ("tsx", "const a = <p>Don‸</p>;\n", "'t stop</p>;\n", "'t stop"),
        # a name may end with a character that is also an operator
        ("ruby", "x = ‸ ? 1 : 2\n", "a.nil? ? 1 : 2\n", "a.nil?"),
        # the text is a block that is similar to the block above
        ("go", "package p\n\nfunc f() error {\n\tif err := g(); err != nil {\n\t\treturn err\n\t}\n"
         "\t‸\n\treturn nil\n}\n",
         "if err := h(); err != nil {\n\t\treturn err\n\t}\n\treturn nil\n}\n",
         "if err := h(); err != nil {\n\t\treturn err\n\t}"),
        # more closing words and lines that are already below the cursor and are not repeated
        ("ruby", "if a\n  ‸\nelse\n  c\nend\n", "b\nelse\n  c\nend\n", "b"),
        ("ruby", "def a\n  1\n‸\n\ndef b\n  2\nend\n", "end\n\ndef b\n", "end"),
        ("php", "<?php\nif ($a):\n    ‸\nendif;\n", "echo 1;\nendif;\n", "echo 1;"),
        ("python", "try:\n    ‸\nexcept ValueError:\n    pass\n", "f()\nexcept ValueError:\n    pass\n", "f()"),
        ("java", "import a.B;\n‸\nimport a.D;\n", "import a.C;\nimport a.D;\nimport a.D;\n", "import a.C;"),
        ("c", "static const int t[] = {\n    1, 2, 3,\n    ‸\n    1, 2, 3,\n};\n", "4, 5, 6,\n    1, 2, 3,\n};\n",
         "4, 5, 6,"),
        ("python", "xs = [\n    (0, 0),\n    (0, 0),\n    ‸\n]\n", "(0, 0),\n]\n", "(0, 0),"),
        # the text does not comment out what is right of the cursor, and does not repeat a comment there
        ("python", "x = [‸]\n", "# comment", NOTHING),
        ("c", "x = ‸;\n", "/* unfinished", NOTHING),
        ("python", "foo(‸)  # call\n", "a)  # call\n", "a"),
        # a long quote or a heredoc is opened only if its end follows
        ("scala", "‸ they cost. */\nclass Cart(items: List[Item])\n", '"""', NOTHING),
        ("bash", "cat ‸END\nx\nEND\n", "<<end", NOTHING),
        ("bash", "cat ‸\nx\nEOF\n", "<<EOF\n", "<<EOF"),
        ("bash", "cat ‸\nx\n", "<<EOF\n", NOTHING),
        ("ruby", "f(‸)\n  x\nEOF\n", "<<~EOF)\n", "<<~EOF"),
        ("ruby", "f(‸)\n  x\n", "<<~EOF)\n", NOTHING),
        # the cursor is in the mark of a heredoc, which the text would change
        ("ruby", "f <<‸RUBY\n  it's (\nRUBY\n", "block all ", NOTHING),
        ("bash", "cat <<‸EOF\nit's (\nEOF\n", "'a' ", NOTHING),
        # the cursor is in a string that begins far above
        ("bash", "names='\n" + "it is\n" * 700 + "a‸b\n" + "c\n" * 700 + "'\necho \"$names\"\n", "('\n", "("),
        # a text that ends a comment of many lines makes the bracket far below count
        ("php", "<?php\n/*\n" + " * a\n" * 60 + " **‸\n" + "    3 => \"/[a]+/s\",\n" * 100 + "    );\n\n?>\n",
         "**/\n$data = array (\n", NOTHING),
        ("c", "/*\n * a\n ‸\n" + "  x();\n" * 200 + "}\n", "*/\nvoid f() {\n", NOTHING),
        ("c", "/*\n * a\n ‸\n" + "int x;\n" * 200, "*/\n", "*/"),
        # a string of many lines ends far below
        ("bash", "names='\n" + "it is\n" * 700 + "a‸b\n" + "c\n" * 1200 + "'\necho \"$names\"\n", "('\n", "("),
        ("python", "s = '''\n" + "it is\n" * 700 + "a‸ b\n" + "cc\n" * 1200 + "'''\nprint(s)\n", "('''\n", "("),
        ("c", "/*\n" + "it is\n" * 700 + "a‸ b\n" + "cc\n" * 1200 + "*/\nint x;\n", "(*/\n", "("),
        ("rust", inside('fn f() {\n    let s = r#"\n', 'it "is {\n', '"#;\n}\n'), "{ \"\n", '{ "'),
        ("cpp", inside('auto s = R"x(\n', 'it "is {\n', ')x";\n'), "{ \"\n", '{ "'),
        ("lua", inside("s = [==[\n", "it's ]] {\n", "]==]\n"), "{ \"\n", '{ "'),
        ("bash", inside("cat <<EOF\n", "it's (\n", "EOF\necho\n"), "{ \"\n", '{ "'),
        ("ruby", inside("f(<<~SQL)\n", "  it's (\n", "SQL\n"), "{ \"\n", '{ "'),
        ("php", inside("<?php\nf(<<<X\n", "it's (\n", "X);\n"), "{ \"\n", '{ "'),
        # a string that ends left of the cursor is not open at the cursor
        ("ruby", "f(<<~SQL)\n  it's (\nSQL\ng(‸)\n", "1)\n", "1"),
        ("bash", "cat <<A\nit's (\nA\nx=$(‸)\n", "ls)\n", "ls"),
        ("rust", 'fn f() {\n    g(r"\\", ‸);\n}\n', "1);\n", "1"),
        # lines in a string are not code, so their indentation means nothing
        ("rust", 'fn f() {\n    let s = r#"{\n"\n"#;\n' + "    g();\n" * 400 + "    h(‸);\n}\n", "1);\n", "1"),
        # a shell pattern can have a bracket that closes nothing
        ("bash", "case $a in\n*]*) echo ‸;;\nesac\n", "b;;\n", "b"),
        # the part of the text that adds a syntax error is cut off
        ("python", "x = ‸\n", "y z\n", "y"),
        ("javascript", "const a = ‸;\n", "b +\n", "b"),
        ("java", "class A {\n    int x = ‸;\n}\n", "1 2\n", "1"),
        # a text that is cut off does not end with an operator or a comma that leaves the line incomplete
        ("python", "x = ‸\n", "1</code>", "1"),
        ("javascript", "const a = ‸\n", "b + ]\n", "b"),
        ("javascript", "const a = ‸\n", "b + = c\n", "b"),
        ("javascript", "const a = ‸\n", "b +\n  c\n", "b +"),
        ("go", "package p\n\nvar a = ‸\n", "b.)\n", "b"),
        ("go", "package p\n\nvar a = ‸\n", "b. = 1\n", "b"),
        ("java", "class A {\n    int x = ‸\n}\n", "a + * b;\n", "a"),
        ("python", "x = ‸\n", "a + 'b\n", "a"),
        # these brackets, strings and closing words are right of or below the cursor already, in other forms
        ("tsx", "return (\n  <ul>\n    {items.map(i => ‸)}\n  </ul>\n);\n", "<li>{i}</li>)}\n  </ul>\n);\n",
         "<li>{i}</li>"),
        ("rust", "fn f() {\n    match x {\n        Some(y) => ‸,\n        None => 0,\n    }\n}\n",
         "y + 1,\n        None => 0,\n", "y + 1"),
        ("ruby", "module A\n  class B\n    ‸\n  end\nend\n", "def c\n      1\n    end\n  end\nend\n",
         "def c\n      1\n    end"),
        ("bash", "while read x; do\n  ‸\ndone < f\n", "echo $x\ndone < f\n", "echo $x"),
        ("c", "#ifdef A\n‸\n#endif\n", "int x;\n#endif\n", "int x;"),
        ("javascript", "useEffect(() => {\n  ‸\n}, []);\n", "load();\n}, [id]);\n", "load();"),
        ("go", "package p\n\nfunc f() {\n\tfmt.Printf(‸\"x\")\n}\n", '"%s", ', '"%s", '),
        ("php", "<?php\necho \"‸\";\n", "a {$b['c']}\";\n", "a {$b['c']}"),
        # a text that ends inside a string does not leave a name, a key or a call without its value
        ("python", "x = ‸\n", 'b="cut off', NOTHING),
        ("python", "a = f(‸)\n", 'b="cut off', NOTHING),
        ("python", "a = f(‸)\n", 'c, b="cut off', "c"),
        ("python", "d = {‸}\n", "'a': 1, 'b': \"cut off", "'a': 1"),
        ("python", "a = ‸\n", 'f(b="cut off', NOTHING),
        ("python", "x = ‸\n", 'a.b.c("cut off', NOTHING),
        ("python", "def f():\n    ‸\n", 'x = 1\n    return "cut off', "x = 1"),
        ("javascript", "f(‸);\n", 'a, { b: "cut off', "a"),
        ("javascript", "const a = {\n  b: 1,\n  ‸\n};\n", 'c: 2,\n  d: "cut off', "c: 2,"),
        ("lua", "local t = { ‸ }\n", 'a = 1, b = "cut off', "a = 1"),
        ("bash", "x=1\n‸\necho b\n", 'ls -l "cut off', NOTHING),
        ("ruby", "x = ‸\n", 'foo bar: "cut off', NOTHING),
        ("tsx", "const a = <div ‸>x</div>;\n", 'id="a" className="cut off', 'id="a"'),
        ("python", "‸x = 1\n", "import os\n", NOTHING),
        ("python", "x = 1\n‸y = 2\n", "z = 3\n", NOTHING),
        ("python", "def f():\n    ‸x\n", "return x\n", "return "),
        ("python", "if ‸\".\"):\n    pass\n", "name.startswith(\".\"):\n    return\n", "name.startswith("),
        ("bash", "f() {\n  ‸'not-a-dir'\n}\n", "src_dir='not-a-dir'\n}\n", "src_dir="),
        # a closing word or bracket of incomplete code is right of or below the cursor already
        ("ruby", "def ‸\nend\n", "d(x)\n  x\nend\n", "d(x)\n  x"),
        ("ruby", "class B < ‸\nend\n", "C\n  def d\n  end\nend\n", "C\n  def d\n  end"),
        ("ruby", "module A\n  class B < ‸\n  end\nend\n", "C\n    def d\n    end\n  end\nend\n",
         "C\n    def d\n    end"),
        ("ruby", "class A\n  def f\n    if ‸\n    end\n  end\nend\n", "x\n      y\n    end\n  end\nend\n",
         "x\n      y"),
        ("python", "x = ‸)\n", "f(1, 2)\n", "f(1, 2"),
        # the block that the text begins is below the cursor already
        ("java", "class A ‸\n{\n}\n", "extends B {\n    int x;\n}\n", "extends B"),
        ("javascript", "x = [\n  ‸\n  {\n    a: 1,\n  },\n];\n", "{\n    b: 2,\n  },\n  {\n    a: 1,\n  },\n];\n",
         "{\n    b: 2,\n  },"),
        ("csharp", "/*\n‸\n{\n}\n*/\n", "{\n", NOTHING),
        ("c", "int f(void)\n{\n    while ‸\n    {\n        x();\n    }\n}\n", "(a)\n    {\n        y();\n    }\n}\n",
         "(a)"),
        ("c", "int f(void)\n‸\n{\n    x();\n}\n", "{\n    y();\n}\n", NOTHING),
        ("javascript", "foo(); ‸\nbar();\n", "bar();\n", NOTHING),
        # an error of a kind that the grammar reports inside another error counts too
        ("python", "x = ‸\n", "a \u2013 b\n", "a"),
        ("python", "x = ‸\n", "\u201ca\u201d\n", NOTHING),
        # text that is not code
        ("tsx", "const a = <p>‸</p>;\n", "I'm here</p>;\n", "I'm here"),
        ("php", "<?php if ($a): ?>\n  ‸\n<?php endif; ?>\n", "<p>it's</p>\n<?php endif; ?>\n", "<p>it's</p>"),
        ("csharp", "class A\n{\n#region ‸\n#endregion\n}\n", "Don't (x\n#endregion\n", "Don't (x"),
        ("c", "#error ‸\nint x;\n", "Don't (x\nint x;\n", "Don't (x"),
    ],
)  # fmt: skip
def test_fits(language: str, source: str, written: str, shown: str) -> None:
    assert accept(source, written, language).shown == shown
    assert accept(source, written, language, bodies=False).shown == shown


@pytest.mark.parametrize(
    ("language", "source", "written", "automatic", "shown"),
    [
        # a closing word of incomplete code is below already
        ("bash", "if ‸\nfi\n", "[ -f x ]; then\n  y\nfi\n", "[ -f x ]; then", "[ -f x ]; then\n  y"),
        ("bash", "while ‸\n  y\ndone\n", "true; do\n  z\ndone\n", "true; do", "true; do\n  z"),
        ("ruby", "x.each ‸\nend\n", "do |y|\n  puts y\nend\n", "do |y|", "do |y|\n  puts y"),
        # a block on a line that has less indentation than the line above
        ("python", "if a:\n    b()\n‸\nelse:\n    c()\n", "elif d:\n    e()\nelse:\n    c()\n",
         "elif d:\n    e()", "elif d:\n    e()"),
        ("python", "class A:\n    def f(self):\n        return 1\n\n    ‸\n",
         "def g(self):\n        return 2\n\n    def h(self):\n", "def g(self):\n        return 2",
         "def g(self):\n        return 2"),
        # the end of a header with several lines
        ("python", "def f(a,\n      b‸", "):\n    return a\n\n\nx = 1\n", "):", "):\n    return a"),
        # a line that is incomplete without the next one
        ("python", "class A:\n    x = 1\n\n    ‸\n", "@a.b(1)\n    def f():\n        return 1\n\n    y = 2\n",
         "@a.b(1)\n    def f():\n        return 1", "@a.b(1)\n    def f():\n        return 1"),
        ("java", "class A {\n    int x;\n\n    ‸\n}\n", "@A\n    public void f() {\n        g();\n    }\n}\n",
         "@A\n    public void f() {\n        g();\n    }", "@A\n    public void f() {\n        g();\n    }"),
        ("rust", "struct A;\n\n‸\n", "#[derive(Debug)]\nstruct B;\n\nstruct C;\n", "#[derive(Debug)]\nstruct B;",
         "#[derive(Debug)]\nstruct B;"),
        ("c", "void f(void) {\n    g();\n    ‸\n}\n", "if (x)\n        h();\n    i();\n}\n", "if (x)\n        h();",
         "if (x)\n        h();"),
        ("csharp", "class A\n{\n    void F()\n    {\n        G();\n        ‸\n    }\n}\n",
         "if (x)\n        {\n            H();\n        }\n    }\n}\n", "if (x)\n        {\n            H();\n        }",
         "if (x)\n        {\n            H();\n        }"),
    ],
)  # fmt: skip
def test_blocks(language: str, source: str, written: str, automatic: str, shown: str) -> None:
    assert accept(source, written, language).shown == shown
    assert accept(source, written, language, bodies=False).shown == automatic


def test_a_line_that_opens_a_block_ends_there_only_where_that_leaves_nothing_open() -> None:
    source, body = "package p\n\nfunc f(x int) {\n\tif ‸\n}\n", "x > 0 {\n\t\tg()\n\t}\n}\n"
    assert accept(source, body, "go", bodies=False).shown == "x > 0 {\n\t\tg()\n\t}"
    unfinished = "package p\n\nfunc f(x int) {\n\tif ‸\n\t\tg()\n\t}\n}\n"
    assert accept(unfinished, body, "go", bodies=False).shown == "x > 0 {"


@pytest.mark.parametrize(
    "marker",
    [
        "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
        "<|im_end|>", "<|cursor|>", "<|eot_id|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim-middle>",
        "<file_sep>", "<PRE>", "<SUF>", "<MID>", " <EOT>", "▁<MID>", "<｜fim▁begin｜>", "<｜fim▁hole｜>",
        "<｜end▁of▁sentence｜>", "<cc>", "<eof>", "[PREFIX]", "[SUFFIX]", "[MIDDLE]", "</s>", "<s>", "<end_of_turn>",
        "[/INST]", "<|mask:0|>", "<[fim-suffix]>", "<fim▁end>", "<AIX-SPAN-MIDDLE>", "<mask_1>", "<sep>",
        "<extra_id_0>", "[gMASK]", "<<SYS>>", "<think>", "</tool_call>", "<end_of_text>", "<code_to_intermediate>",
        "<ctrl99>", "<unused42>", "<reserved_106>", "<reserved_special_token_0>", "<turn|>", "<|turn>", "<channel|>",
        "[UNUSED_TOKEN_145]", "<seed:eos>", "[EOS]", "[BOS]", "[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", "[sMASK]",
        "[EOT]", "[TOOL_CALLS]", "[/AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]", "[THINK]", "[@BOS@]", "<SPECIAL_20>", "<eoh>",
        "<TOKENS_UNUSED_3>", "<EOS_TOKEN>", "<PAD>", "<UNK>", "<EOS>", ">>PREFIX<<", ">>MIDDLE<<", "<0x0A>", "[e~[",
        "]~b]", "]~!b[", "<mask:0>", "</code>", "</answer>", "</response>", "<tool_response>", "<|tool_response>",
        "<arg_key>", "<pr_status>", "<pr>", "<PASSWORD>", "<start_of_image>", "<end_of_utterance>", "[|endofturn|]",
        "|||IP_ADDRESS|||", "|ENDOFTEXT|", "<| file ext=.py |>", "<minimax:tool_call>", "_<EOT>", "<REPO>", "<EOL>",
        "<STR_LIT>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["python", "yaml"])
def test_no_marker_is_shown(marker: str, language: str) -> None:
    assert accept("x: ‸\n", f"[y]{marker} and more\n", language).shown == "[y]"
    assert accept("x: ‸\n", f"{marker}\ny = 1\n", language).shown == NOTHING


def test_code_about_markers_may_name_one_in_a_string() -> None:
    known = 'STOPS = ["<|endoftext|>", ‸]\n'
    assert accept(known, '"<|fim_middle|>", "<EOT>"]\n', "python").shown == '"<|fim_middle|>", "<EOT>"'
    assert accept(known, '"a"<|im_end|>', "python").shown == '"a"'
    assert accept("STOPS = [‸]\n", '"<|fim_middle|>", "a"]\n', "python").shown == NOTHING
    assert accept("const a = <p><s>old‸</p>;\n", "</s></p>;\n", "tsx").shown == "</s>"


@pytest.mark.parametrize(
    ("language", "source", "written", "shown"),
    [
        # tags
        ("", "<p>Use <code>‸\n</p>\n", "x</code> now.\n</p>\n", "x</code> now."),
        ("", "<p>a ‸</p>\n", "<s>b</s> c</p>\n", "<s>b</s> c"),
        ("tsx", "const a = <p>‸</p>;\n", "<code>x</code> now</p>;\n", "<code>x</code> now"),
        ("java", "class A {\n    /** ‸ */\n    int x;\n}\n", "A <code>x</code>. */\n", "A <code>x</code>."),
        ("python", "# ‸\n", "does it</code>\n", "does it"),
        ("python", "def f():\n    ‸\n", "return 1</code>\n", "return 1"),
        # names that the file contains
        ("python", "from a import BOS, EOS\n\nids = ‸\n", "[BOS] + ids + [EOS]\n", "[BOS] + ids + [EOS]"),
        ("python", "PREFIX = 1\n" + "x = 1\n" * 1_000 + "y = a‸\n", "[PREFIX]\n", "[PREFIX]"),
        ("java", "class A<KEY> {\n    KEY key;\n    ‸\n}\n", "List<KEY> keys;\n}\n", "List<KEY> keys;"),
        ("cpp", "struct issue_info {};\n‸\n", "std::vector<issue_info> infos;\n", "std::vector<issue_info> infos;"),
        ("python", "x = 1\ny = ‸\n", "2[EOS]\n", "2"),
    ],
)  # fmt: skip
def test_a_marker_that_is_source_code_is_shown(language: str, source: str, written: str, shown: str) -> None:
    assert accept(source, written, language).shown == shown


def test_an_unknown_marker_is_cut_as_a_whole() -> None:
    assert accept("foo()\n‸\n", "bar()<unknown>\nbaz()\n", "python").shown == "bar()"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", NOTHING),
        (" \t\n  \n", NOTHING),
        ("1\x00 + 2\n", NOTHING),  # the text is cut at the invalid character, so its last line is incomplete
        ("1\nx = \x1b[31m\n", "1"),
        ("\ud83d", NOTHING),
        ("\udc00 1\n", NOTHING),
        ("1\r\ny = 2\r\n", "1"),
        ("1\u2028y = 2", NOTHING),
        ("\u200b1\n", NOTHING),
        ("a\u202e + b\n", NOTHING),  # the invisible character changes the direction of the text
        ("<|fim_mid", NOTHING),
        ("a" * 40_000, NOTHING),
        ("1\n" + "y = 2\n" * 10_000, "1"),
        ("(" * 5_000, NOTHING),
        ("1)" * 5_000, "1"),
    ],
)
def test_whatever_a_generator_writes(written: str, shown: str) -> None:
    assert accept("x = ‸\nz = 3\n", written, "python").shown == shown


def test_a_chat_models_fences_are_not_shown() -> None:
    assert accept("x = ‸\n", "```python\n1\n```\n", "python").shown == NOTHING
    assert accept("x = ‸\n", "1\n```\n", "python").shown == "1"
    assert accept('def f():\n    """Do it.\n\n‸\n    """\n', "```\nf()\n```\n", "python").shown == "```"
    assert accept("Use it:\n\n‸\n", "```\n", "markdown").shown == "```"
    assert accept("def f(x):\n    ‸\n", "return x\n### Response:\n", "python").shown == "return x"
    assert accept("# Title\n\n‸\n", "### Response: it\n", "markdown").shown == "### Response: it"


def test_why_nothing_is_shown() -> None:
    assert accept("x = ‸\n", "", "python").reason == "the model generated no text"
    assert accept("x = ‸\n", "<|endoftext|>", "python").reason.startswith("the model generated only markers")
    assert accept("def f(a):\n    ‸\n    return b\n", "return b\n", "python").reason.startswith("the text would repeat")
    assert accept("x = f(‸)\n", ")(\n", "python").reason.startswith("the text would leave brackets")
    assert accept("x = 1‸\n", " 2\n", "python").reason == "the text would add a syntax error"


BODY = "def f():\n    for x in y:\n        z(x)\n"


@pytest.mark.parametrize(
    ("source", "written", "shown"),
    [
        ("def f():\n\tx = 1\n\tif x:‸\n", "\n        return 1\n", "\n\t\treturn 1"),
        ("def f():\n    x = 1\n    if x:‸\n", "\n\t\treturn 1\n", "\n        return 1"),
        ("if a:\n  b = 1\nif b:‸\n", "\r\n\tc = 1\r\n", "\n  c = 1"),
        ("def f():\n    ‸\n", "x = 1\n    y = 2\n", "x = 1\n    y = 2"),
        ("def f():\n\t‸\n", "    x = 1\n    return x\n", "x = 1\n\treturn x"),
        ("class A:\n    def f(self):\n‸\n", "        return 1\n", "        return 1"),
        # the text has more or less indentation for a level than the document
        ("def f():\n  ‸\n", "if a:\n        b()\n    return 1\n", "if a:\n    b()\n  return 1"),
        ("class A:\n  def f(self):\n    ‸\n", "x = 1\n        return x\n", "x = 1\n    return x"),
        ("class A:\n    def f(self):\n        ‸\n", "if x:\n      y()\n    return x\n",
         "if x:\n            y()\n        return x"),
        ("def f():\n\tx = 1\n\t‸\n", "if x:\n            return 2\n        return 3\n", "if x:\n\t\treturn 2"),
        ("if a:\n\tb()\n\tif c:‸\n", "\n    d()\n", "\n\t\td()"),
        # the text has no indentation, or the indentation before the cursor again
        ("class A:\n    def f(self):\n        ‸\n", "if x:\n    y()\nreturn x\n",
         "if x:\n            y()\n        return x"),
        ("def f():\n‸\n", "return 1\n", "    return 1"),
        ("def f():\n    ‸\n", "    x = 1\n    return x\n", "x = 1\n    return x"),
        ("def f():\n    ‸\n", "     x = 1\n     return x\n", "x = 1\n    return x"),
        # the cursor's line has no indentation yet
        ("class A:\n\tdef f(self):\n‸\n", "        return 1\n", "\t\treturn 1"),
        ("class A:\n\tdef f(self):\n\t\tx = 1\n‸\n", "        return 1\n", "\t\treturn 1"),
        ("class A:\n    def f(self):\n        x = 1\n‸\n", "\t\treturn 1\n", "        return 1"),
        # a part of the document has another style than the lines around the cursor
        (BODY * 9 + "def g():\n  x = 1\n  if x:‸\n" + BODY * 9, "\n\t\treturn 1\n", "\n    return 1"),
        (BODY * 9 + "def g():\n\tx = 1\n\tif x:‸\n" + BODY * 9, "\n        return 1\n", "\n\t\treturn 1"),
        ("x = f(a,\n      b)\ny = g(a,\n      b)\nif x:\n    if y:‸\n", "\n\t\tz()\n", "\n        z()"),
        # lines that fit no indentation are left out, because Python refuses them
        ("if a:\n    ‸\n", "b()\n       c()\n", "b()"),
        ("if a:\n    ‸\n", "if b:\n        c()\n      d()\n", "if b:\n        c()"),
    ],
)  # fmt: skip
def test_indentation_is_that_of_the_document(source: str, written: str, shown: str) -> None:
    assert accept(source, written, "python").shown == shown


@pytest.mark.parametrize(
    ("language", "source", "written", "shown"),
    [
        ("javascript", "class A {\n\tf() {\n\t\t‸\n\t}\n}\n", "if (a) {\n      b();\n    }\n  }\n}\n",
         "if (a) {\n\t\t\tb();\n\t\t}"),
        ("javascript", "function f() {\n  ‸\n}\n", "if (a) {\n        b();\n    }\n}\n", "if (a) {\n    b();\n  }"),
        ("javascript", "function f() {\n  a();\n  ‸\n}\n", "\tif (a) {\n\t\tb();\n\t}\n}\n", "if (a) {\n    b();\n  }"),
        ("javascript", "function f() {\n    ‸\n}\n", "switch (a) {\n    case 1:\n        b();\n    }\n}\n",
         "switch (a) {\n    case 1:\n        b();\n    }"),
        ("ruby", "class A\n\tdef f\n\t\t‸\n\tend\nend\n", "if x\n      y\n    end\n  end\nend\n",
         "if x\n\t\t\ty\n\t\tend"),
        # a label can have the indentation of the line that opens its block, and the next line one level more
        ("swift", "func f() {\n    switch a {\n    ‸\n    default:\n        c()\n    }\n}\n", "case 1:\n        b()\n",
         "case 1:\n        b()"),
        ("c", "void f() {\n  switch (a) {\n  ‸\n  default:\n    c();\n  }\n}\n", "case 1:\n    b();\n",
         "case 1:\n    b();"),
        # these languages are indented with tabs, also in a file without indentation
        ("go", "package p\n\nfunc f() {\n‸\n}\n", "    x := 1\n    return\n}\n", "\tx := 1\n\treturn"),
        ("makefile", "a:\n‸\n", "        b\n", "\tb"),
        ("php", "<?php\nclass A {\n    function f(\n        $a\n    ) {\n    ‸\n}\n", "}\n}\n", "}"),
        # without a grammar, more indentation can have a meaning
        ("", "a:\n‸\n", "  b: 1\n", "  b: 1"),
    ],
)  # fmt: skip
def test_indentation_in_other_languages(language: str, source: str, written: str, shown: str) -> None:
    assert accept(source, written, language).shown == shown


@pytest.mark.parametrize(
    ("language", "source", "written", "shown"),
    [
        (
            "elixir",
            "def total do\n  ‸\nend\n\ndef size do\nend\n",
            "Enum.sum(items)\nend\n\ndef size",
            "Enum.sum(items)",
        ),
        ("elixir", "def a do\n  if b do\n    c\n  ‸\nend\n", "end\nend\n", "end"),
        ("elixir", "f(xs, fn x ->\n  ‸\nend)\n", "x + 1\nend)\n", "x + 1"),
        ("css", "a ‸\n}\n", "{\n  color: red;\n}\n", "{\n  color: red;"),
        ("makefile", "ifdef A\nB = 1\n‸\nendif\n", "C = 2\nendif\n", "C = 2"),
        ("cmake", "if(A)\n  ‸\nendif()\n", "set(B 1)\nendif()\n", "set(B 1)"),
        ("vue", "<div>\n  ‸\n</div>\n", "<b>x</b>\n</div>\n", "<b>x</b>"),
        ("clojure", "(defn f [x]\n  (+ x ‸))\n", "1))\n\n(f 1)\n", "1"),
        ("haskell", "f x = g (‸)\n", "h x)\n", "h x"),
        ("sql", "SELECT max(‸), b FROM t;\n", "a), b FROM t;\n", "a"),
        ("sql", "SELECT a FROM t WHERE a = '‸';\n", "it''s';\n", "it''s"),
        ("powershell", "Say '‸'\n", "it''s'\n", "it''s"),
        ("powershell", 'Say "‸"\n', 'a `"b`" c"\n', 'a `"b`" c'),
        ("yaml", "a: '‸'\n", "b'\n", "b"),
        ("fsharp", "let x = a ‸\n", "|> f <| b\n", "|> f <| b"),
        ("fsharp", "let x = ‸\n", "f <| b |> g\n", "f <| b |> g"),
        ("dart", "print('‸');\n", "it\\'s');\n", "it\\'s"),
        ("", 'key: "‸"\n', 'value"\n', "value"),
        ("", '{"a": [‸]}\n', "1, 2]}\n", "1, 2"),
        ("", "We don‸\n", "'t know (yet)\n", "'t know (yet)"),
    ],
)
def test_without_a_grammar_brackets_quotes_and_lines_are_still_kept(
    language: str, source: str, written: str, shown: str
) -> None:
    assert language not in LANGUAGES or not LANGUAGES[language].grammar
    assert accept(source, written, language).shown == shown


@pytest.mark.parametrize("written", ["x = 1\n", "x = (1\n", "x = 1)\n", "}\n", "if x:\n        y = 1\n"])
def test_a_file_full_of_errors_gets_no_more(written: str) -> None:
    source = "def f(:\n\tx ==\n  y = (\n" * 30 + "def g():\n    ‸\n" + "z = )\r\n}{\n" * 30
    accepted = accept(source, written, "python")
    assert errors(accepted.text, "python") <= errors(source.replace("‸", ""), "python")


@pytest.mark.parametrize(
    "source", ["", "‸" * 0 + "‸", "‸\n", "\n‸", "(" * 3_000 + "‸", "x" * 300_000 + "‸" + "y" * 300_000]
)
def test_any_file(source: str) -> None:
    if source:
        accept(source, "x = 1\n", "python")
