"""Write the report: first the findings in sentences, then the tables and plots.

The report is composed once, as sections, and rendered twice: as Markdown and as one self-contained HTML file. The
findings also say what the data do not show.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import plots, showing
from .figures import Figures, PolicyFigures
from .showing import ShownFigures
from .statistics import Estimate
from .table import Row
from .task import Problem

SHOWN_PROBLEMS = 50
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, followed by paragraphs, tables (caption, header, rows) and plots by name."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = ()
    plots: tuple[str, ...] = ()


def write(
    out: Path,
    rows: Sequence[Row],
    figures: Figures,
    run: Mapping[str, Any],
    problems: Sequence[Problem],
    shown: ShownFigures | None = None,
) -> None:
    """Write `report.html`, `report.md` and the plots into `out`, and, with `shown`, its curve as `shown.csv`."""
    drawn = plots.all_plots(rows, figures, shown)
    sections = compose(figures, run, problems)
    if shown:
        sections.insert(4, _shown(shown))
        (out / "shown.csv").write_text(showing.to_csv(shown), "utf-8")
    for name, (_, png) in drawn.items():
        (out / f"{name}.png").write_bytes(png)
    (out / "report.md").write_text(markdown(sections, drawn), "utf-8")
    (out / "report.html").write_text(page(sections, drawn), "utf-8")


def compose(figures: Figures, run: Mapping[str, Any], problems: Sequence[Problem]) -> list[Section]:
    """Return the sections of the report."""
    sections = [
        Section(
            f"Evaluation: {run.get('data', 'unknown data')}",
            tuple(findings(figures, problems)),
            ((("What was run", ("", ""), _about(figures, run)),)),
            ("gain",),
        ),
        Section(
            "Policies as they are served",
            ("Each policy with its own threshold, compared in edit similarity with never retrieving.",),
            (("All blanks", _HEADER, _policy_rows(figures.served)),
             *((f"{kind.capitalize()} blanks ({figures.kinds[kind]})", _HEADER, _policy_rows(placed))
               for kind, placed in figures.by_kind.items())),
            ("threshold",),
        ),
        Section(
            "Policies at the same budget",
            (f"Every policy retrieves in {figures.budget:.0%} of the requests: those to which it gives the highest "
             f"scores. It is compared with {figures.primary}. The oracle uses the truth, and `random` uses no "
             "information.",),
            (("", _HEADER, _policy_rows(figures.equal)),),
            ("budget",),
        ),
        Section(
            "The decision",
            ("AUC: how often a blank that retrieval improves has a higher score than one that it does not improve. "
             "0.5 is chance.",),
            (("", ("signal", "AUC", "better than chance"),
              tuple((each.name, _estimate(each.auc, 3), "yes" if each.informative else "not shown")
                    for each in figures.signals)),
             ("", ("figure", "value"),
              (("calibration error, 10 bins", _estimate(figures.calibration_error, 3)),
               ("best threshold here", f"{figures.best.threshold:.2f} (edit similarity "
                f"{figures.best.value:.2f}, {figures.best.share:.0%} retrieval)")))),
            ("abstention", "calibration"),
        ),
        Section(
            "Repositories",
            (),
            (("", ("repository", "blanks", "gain in edit similarity", "helped"),
              tuple((name, str(count), _estimate(gain), f"{helped:.0%}")
                    for name, (count, gain, helped) in figures.by_repository.items())),),
        ),
    ]  # fmt: skip
    if figures.times:
        sections.insert(3, _latency(figures))
    if typing := run.get("typing"):
        sections.insert(4, _typing(typing))
    if figures.tests[0] or figures.untested:
        count, without, with_ = figures.tests
        note = f"The percentages are of {count} blanks."
        if figures.untested:
            note += f" The tests of {figures.untested} more could not run; `results.csv` has the reasons."
        rows = (("without retrieval", _estimate(without)), ("with retrieval", _estimate(with_)))
        sections.append(Section("Unit tests", (note,), (("", ("branch", "% that pass"), rows),)))
    if problems:
        listed = tuple((problem.item, problem.reason) for problem in problems[:SHOWN_PROBLEMS])
        more = len(problems) - len(listed)
        text = (f"{len(problems)} items were not evaluated." + (f" The first {len(listed)} are:" if more else ""),)
        sections.append(Section("Not evaluated", text, (("", ("item", "why"), listed),)))
    return sections


def findings(figures: Figures, problems: Sequence[Problem]) -> list[str]:
    """Return the findings as sentences. If the figures show no effect, a sentence says so."""
    served = {placed.name: placed for placed in figures.served}
    sentences = [
        f"Always retrieving changes edit similarity by {_estimate(figures.gain, sign=True)} compared with never "
        f"({_p(figures.gain_p)}). Edit similarity rises in {figures.helped:.0%} of {figures.blanks} blanks, falls in "
        f"{figures.harmed:.0%}, and does not change in {figures.unchanged:.0%}."
    ]
    primary = next(each for each in figures.signals if each.name == figures.primary)
    own = next(placed for name, placed in served.items() if name.startswith(figures.primary))
    if figures.primary == "trial retrieval":
        sentences.append(
            "This model makes no decision of its own, because it has no token for it. The server uses trial retrieval "
            "instead, which decides by the similarity of the best chunk."
        )
    if math.isnan(primary.auc.value):
        sentences.append("The quality of the decision is unknown, because retrieval helped for all blanks or for none.")
    elif figures.constant:
        sentences.append(
            f"The decision is the same for all blanks (AUC {primary.auc.value:.2f}), so it carries no information. "
            "This model has not learned to decide."
        )
    elif not primary.informative:
        sentences.append(
            "The decision is not shown to be better than chance: the interval of its AUC, "
            f"{_estimate(primary.auc, 3)}, includes 0.5."
        )
    else:
        sentences.append(
            f"The decision ({primary.name}) predicts that retrieval helps with an AUC of {_estimate(primary.auc, 3)}."
        )
    always = served["always"]
    sentences.append(
        f"As served, {own.name} retrieves in {own.share:.0%} of requests and reaches an edit similarity of "
        f"{_estimate(own.es)}; always retrieving reaches {_estimate(always.es)}, "
        f"the oracle {_estimate(served['oracle'].es)}."
    )
    random = next(placed for placed in figures.equal if placed.name == "random")
    is_better = random.p < SIGNIFICANCE and random.against.value < 0
    sentences.append(
        f"If every policy retrieves in {figures.budget:.0%} of requests, {figures.primary} is "
        + ("better than" if is_better else "not shown to differ from" if random.p >= SIGNIFICANCE else "worse than")
        + f" retrieving at random ({round(-random.against.value, 2) + 0.0:+.2f} in edit similarity, {_p(random.p)})."
    )
    if problems:
        sentences.append(f"{len(problems)} items could not be evaluated. They are listed at the end.")
    return sentences


def shown_findings(shown: ShownFigures | None) -> list[str]:
    """Return sentences about what an editor would show."""
    said = []
    for each in shown.levels if shown else ():
        quiet = (
            "" if math.isnan(each.quiet) else f" and nothing in {each.quiet:.0%} of the places where nothing belongs"
        )
        said.append(
            f"`suggest: {each.name}` shows a text at {_share(each.shown)} of the blanks{quiet}. Of the shown texts, "
            f"{_share(each.precision.value)} are correct to the end of the line. These are {_share(each.found)} of all "
            "correct texts."
        )
    return said


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _shown(shown: ShownFigures) -> Section:
    header = ("suggest", "shown", "correct to the line's end", "correct ones shown", "characters kept",
              "break the syntax", "quiet places left alone")  # fmt: skip
    rows = tuple(
        (each.name, _share(each.shown), _estimate(each.precision), _share(each.found), _share(each.kept),
         str(each.breaks), _share(each.quiet))
        for each in shown.levels
    )  # fmt: skip
    by = "the estimated probability that they are kept" if shown.estimated else "the mean probability of their tokens"
    text = (
        f"What an editor would show at {shown.places - shown.quiet_places} blanks, and at {shown.quiet_places} places "
        f"where nothing belongs. The curve shows texts in the order of {by}; `shown.csv` has its points.",
    )
    return Section("What is shown", text, (("", header, rows),), ("shown",) if shown.curve else ())


_HEADER = ("policy", "retrieves", "EM", "ES", "F1", "difference in ES", "p", "abstentions right")


def _policy_rows(placed: Sequence[PolicyFigures]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            each.name,
            f"{each.share:.0%}",
            f"{each.em.value:.1f}",
            _estimate(each.es),
            f"{each.f1.value:.1f}",
            _estimate(each.against, sign=True),
            _p(each.p).removeprefix("p = ").removeprefix("p "),
            "" if math.isnan(each.abstention_precision) else f"{each.abstention_precision:.2f}",
        )
        for each in placed
    )


def _latency(figures: Figures) -> Section:
    rows = tuple(
        (
            time.policy,
            f"{time.share:.0%}",
            *(f"{value:.0f}" for value in (time.decision, time.retrieval, time.generation, time.p50, time.p95)),
            f"{100 * time.speed_up.value:+.0f}% [{100 * time.speed_up.low:+.0f}, {100 * time.speed_up.high:+.0f}]",
        )
        for time in figures.times
    )
    header = ("policy", "retrieves", "decision", "retrieval", "generation", "p50", "p95", "faster than always")
    text = (
        f"Milliseconds for {figures.times[0].requests} requests per policy through the completer that serves editors, "
        "each with an empty cache. Stages are means. Retrieval runs in parallel with the decision. `generation` has "
        "the evaluation of the prompt tokens that the decision did not evaluate.",
    )
    return Section("Latency", text, (("", header, rows),))


def _typing(typing: Mapping[str, Mapping[str, float]]) -> Section:
    rows = tuple(
        (name, f"{each['per_request']:.2f}", f"{each['accepted']:.0%}", f"{each['shown']:.0%}")
        for name, each in typing.items()
    )
    header = ("policy", "characters accepted per request", "share of the truth", "requests with a suggestion")
    return Section("A simulated typist", (), (("", header, rows),))


def _about(figures: Figures, run: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    model, device = run.get("model", {}), run.get("device", {})
    budgets = ", ".join(f"{name} {value}" for name, value in model.get("budgets", {}).items())
    rows = [
        ("blanks", f"{figures.blanks} ({', '.join(f'{count} {kind}' for kind, count in figures.kinds.items())})"),
        ("model", f"{model.get('file', '?')} (SHA-256 {str(model.get('sha256', '?'))[:12]}…)"),
        ("layout", f"{model.get('layout', '?')}; {budgets}"),
        (
            "retrieval",
            f"{run.get('retriever', '?')} over chunks by {run.get('chunking', '?')}, at most {run.get('chunks', '?')}",
        ),
        ("machine", f"{device.get('processor', '?')}, {device.get('cores', '?')} cores, {device.get('system', '?')}"),
        (
            "software",
            f"repoformer-lsp {device.get('repoformer_lsp', '?')}, {device.get('llama_cpp', '?')}, "
            f"Python {device.get('python', '?')}",
        ),
    ]
    if generator := run.get("generator"):
        rows.insert(2, ("generator", f"{generator['file']} (SHA-256 {generator['sha256'][:12]}…)"))
    return tuple(rows)


def _estimate(estimate: Estimate, digits: int = 2, *, sign: bool = False) -> str:
    if math.isnan(estimate.value):
        return "–"
    plus = "+" if sign else ""
    return f"{estimate.value:{plus}.{digits}f} [{estimate.low:{plus}.{digits}f}, {estimate.high:{plus}.{digits}f}]"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# -- rendering --------------------------------------------------------------------------------------------------------


def markdown(sections: Sequence[Section], drawn: Mapping[str, tuple[str, bytes]]) -> str:
    """Render the report as Markdown. Plots are separate files."""
    lines: list[str] = []
    for level, section in enumerate(sections):
        lines += [f"{'#' if level == 0 else '##'} {section.title}", ""]
        for text in section.text:
            lines += [f"- {text}" if level == 0 else text, *([""] if level else [])]
        lines += [""] if level == 0 else []
        for caption, header, rows in section.tables:
            lines += [f"**{caption}**", ""] if caption else []
            lines.append(f"| {' | '.join(header)} |")
            lines.append(f"|{' --- |' * len(header)}")
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
            lines.append("")
        for name in section.plots:
            lines += [f"![{drawn[name][0]}]({name}.png)", ""]
    return "\n".join(lines).rstrip() + "\n"


def page(sections: Sequence[Section], drawn: Mapping[str, tuple[str, bytes]]) -> str:
    """Render the report as one HTML file that contains its plots and style."""
    body: list[str] = []
    for level, section in enumerate(sections):
        tag = "h1" if level == 0 else "h2"
        body.append(f"<{tag}>{html.escape(section.title)}</{tag}>")
        if level == 0:
            body.append("<ul class=findings>" + "".join(f"<li>{_code_spans(text)}" for text in section.text) + "</ul>")
        else:
            body += [f"<p>{_code_spans(text)}</p>" for text in section.text]
        for caption, header, rows in section.tables:
            title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
            head = "".join(f"<th>{html.escape(cell)}" for cell in header) if any(header) else ""
            cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
            body.append(f"<div class=wide><table>{title}<thead><tr>{head}</thead><tbody>{cells}</tbody></table></div>")
        for name in section.plots:
            caption, png = drawn[name]
            image = base64.b64encode(png).decode()
            body.append(f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{image}">')
    return _PAGE.replace("TITLE", html.escape(sections[0].title)).replace("BODY", "\n".join(body))


def _code_spans(text: str) -> str:
    """Escape a text for HTML and render `name` as `<code>`."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-top: 1px solid #e6eaee; padding-top: 1rem; }
.findings { background: #f4f7f9; padding: 1rem 1rem 1rem 2.2rem; border-left: 4px solid #0b6e99; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e6eaee; vertical-align: top; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
</style>
BODY
</html>
"""
