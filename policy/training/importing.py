"""`repoformer-lsp model import`: convert a Hugging Face checkpoint to a GGUF in the user's model folder.

The released Repoformers are StarCoder models with two more tokens for the decision. If the vocabulary contains these
tokens, the metadata of the GGUF names the layout of the prompts, so that the model decides without further settings.
An embedding model (`encoders.py`) goes into a folder of its own, so that no server uses it to complete code.
The checkpoint is converted to F16 and then quantized with llama.cpp. An incomplete file never has the final name.
"""

from __future__ import annotations

from pathlib import Path

from policy.models.gguf import check_generator, read_header
from policy.models.locate import cache_dir

from .convert import Type, import_folder
from .encoders import import_encoder, is_encoder
from .manifest import TrainingError
from .quantizing import TYPES as QUANTIZED
from .quantizing import quantize

TYPES = ("F32", "F16", *QUANTIZED)
DEFAULT = "Q8_0"
_DECISION_TOKENS = {"<cfc_info>", "<end_rc>"}


def run(folder: Path, out: Path | None = None, type_: str = DEFAULT) -> Path:
    """Convert the checkpoint in `folder` to `out` (default: a file in the user's model folder) and return its path.

    Raises `TrainingError` or `ModelInvalid`. The message says what is missing or unsupported, or cannot be written.
    """
    encoder = is_encoder(folder)
    home = cache_dir().with_name("embedding") if encoder else cache_dir()
    out = out or home / f"{folder.absolute().name.rpartition('--')[2]}-{type_}.gguf"
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder with a checkpoint")
    out.parent.mkdir(parents=True, exist_ok=True)
    unquantized = out if type_ in {"F32", "F16"} else out.with_name(f"{out.name}.whole")
    try:
        first: Type = "F32" if type_ == "F32" else "F16"
        if encoder:
            import_encoder(folder, unquantized, first)
        else:
            import_folder(folder, unquantized, _layout_of(folder), first)
        if unquantized != out:
            quantize(unquantized, out, type_)
    finally:
        if unquantized != out:
            unquantized.unlink(missing_ok=True)
    if encoder:
        read_header(out)  # `check_generator` refuses models that cannot generate
    else:
        check_generator(out)
    return out


def _layout_of(folder: Path) -> dict[str, str | int | float]:
    """Return the metadata that names the paper's layout if the model has the two decision tokens, else {}."""
    file = folder / "tokenizer.json"
    text = file.read_text("utf-8") if file.is_file() else ""
    return {"repoformer.layout": "repoformer"} if all(f'"{token}"' in text for token in _DECISION_TOKENS) else {}
