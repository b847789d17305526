"""A GGUF file in parts, which llama.cpp loads as one when it is given the first of them.

A repository and the services around it bear files of some forty megabytes; they do not all bear one of a hundred.
"""

from __future__ import annotations

import glob
from pathlib import Path

_OWN = ("GGUF.", "split.", "general.architecture")  # what the writer says by itself


def split(source: Path, most: int) -> list[Path]:
    """Write `source` as parts of at most about `most` bytes beside it; returns them in order, and removes `source`.

    What fits into one part stays as it is. Parts of an earlier file go first: there may have been more of them.
    """
    import gguf  # of the `train` extra, while the command line that imports this module is everybody's

    remove_parts(source)
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(source, architecture, split_max_size=most)
    for key, field in reader.fields.items():
        if not key.startswith(_OWN):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if len(writer.tensors) == 1:  # it would be written over the file that it is read from
        return [source]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source.unlink()
    return _parts(source)


def remove_parts(source: Path) -> None:
    """Remove the parts that stand beside `source`, whether it is there or not."""
    for part in _parts(source):
        part.unlink()


def _parts(source: Path) -> list[Path]:
    return sorted(source.parent.glob(f"{glob.escape(source.stem)}-?????-of-?????.gguf"))
