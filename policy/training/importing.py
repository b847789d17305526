"""`repoformer-lsp model import`: a Hugging Face checkpoint becomes a GGUF that the server finds.

The released Repoformers are StarCoder with two added tokens; where those are in the vocabulary the file says in which
order its prompts are laid out, so that it decides without any setting. The checkpoint is converted in F16 and then
quantised; a file that is half written never has the name that is looked for.
"""

from __future__ import annotations

from pathlib import Path

from policy.models.gguf import check_generator
from policy.models.locate import cache_dir

from .convert import import_folder
from .manifest import TrainingError
from .quantising import TYPES as QUANTISED
from .quantising import quantise

TYPES = ("F32", "F16", *QUANTISED)
DEFAULT = "Q8_0"
_DECIDING = {"<cfc_info>", "<end_rc>"}


def run(folder: Path, out: Path | None = None, type_: str = DEFAULT) -> Path:
    """Convert the checkpoint in `folder` to `out` (default: among the models of this user); its path.

    Raises `TrainingError` or `ModelInvalid` that says what is missing, unknown, or could not be written.
    """
    out = out or cache_dir() / f"{folder.absolute().name.rpartition('--')[2]}-{type_}.gguf"
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder with a checkpoint in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = out if type_ in {"F32", "F16"} else out.with_name(f"{out.name}.whole")
    try:
        import_folder(folder, whole, _layout_of(folder), "F32" if type_ == "F32" else "F16")
        if whole != out:
            quantise(whole, out, type_)
    finally:
        if whole != out:
            whole.unlink(missing_ok=True)
    check_generator(out)
    return out


def _layout_of(folder: Path) -> dict[str, str | int | float]:
    """The metadata that makes a model with the paper's tokens a Repoformer; none for others."""
    file = folder / "tokenizer.json"
    text = file.read_text("utf-8") if file.is_file() else ""
    return {"repoformer.layout": "repoformer"} if all(f'"{token}"' in text for token in _DECIDING) else {}
