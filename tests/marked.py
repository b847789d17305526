"""Add the markers of a Repoformer to a model, by renaming five special tokens that the model does not use.

The model is not trained for these markers, so its decisions mean nothing. But it returns a probability P(`<cc>`), which
is enough for tests of prompts, decisions and the KV cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf

MARKERS = {"<gh_stars>": "<fim_prefix>", "<issue_start>": "<fim_suffix>", "<issue_comment>": "<fim_middle>"}
MARKERS |= {"<issue_closed>": "<eof>", "<jupyter_start>": "<cc>"}
FIM_KEYS = {"<fim_prefix>": "pre", "<fim_suffix>": "suf", "<fim_middle>": "mid"}


def mark(source: Path, target: Path, layout: str, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
    """Copy the GGUF file `source` to `target`, and add the markers, the name of the layout, and `metadata`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    tokens: list[str] = [MARKERS.get(token, token) for token in reader.fields["tokenizer.ggml.tokens"].contents()]
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value: Any = tokens if field.name == "tokenizer.ggml.tokens" else field.contents()
        inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    for marker, name in FIM_KEYS.items():
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", tokens.index(marker))
    writer.add_string("repoformer.layout", layout)
    for slot, size in {"left": 256, "right": 64, "context": 128}.items():
        writer.add_uint32(f"repoformer.budget.{slot}", size)
    for key, value in metadata.items():
        writer.add_string(key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
