"""`repoformer-lsp model`: which model is used, which there are, and getting the default one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from policy import models
from policy.errors import ModelError
from policy.gguf import check_generator

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "model",
        help="show or get the model",
        description="Show which model is used, list those that are there, or get the default one.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = actions.add_parser("path", help="print the path of the model that is used")
    path.add_argument("--model", default="", metavar="FILE", help="as if the setting `model` were this")
    path.set_defaults(run=_path)
    actions.add_parser("list", help="list the models that are there").set_defaults(run=_list)
    actions.add_parser("pull", help="get the default model, if it is not here").set_defaults(run=_pull)


def _path(options: argparse.Namespace) -> int:
    print(models.resolve(options.model).path)
    return 0


def _list(options: argparse.Namespace) -> int:
    found = models.installed()
    for number, model in enumerate(found):
        try:
            kind = check_generator(model.path).architecture
        except ModelError as error:
            kind = f"unusable: {error}"
        size = model.path.stat().st_size / 1e6
        print(f"{'*' if number == 0 else ' '} {model.path}  {size:,.0f} MB  {model.source}  {kind}")
    if not found:
        print(f"no models (looked in the package and in {models.cache_dir()}); get one: repoformer-lsp model pull")
    return 0


def _pull(options: argparse.Namespace) -> int:
    shipped = next((model for model in models.installed() if model.source == "shipped"), None)
    model = shipped or models.place_interim(lambda line: print(line, file=sys.stderr))
    print(model.path)
    return 0
