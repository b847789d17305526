"""A GGUF file in parts, which llama.cpp loads as one when it is given the first of them.

A repository and the services around it bear files of some forty megabytes; they do not all bear one of a hundred.
"""

from __future__ import annotations

from pathlib import Path

_OWN = ("GGUF.", "split.", "general.architecture")  # what the writer says by itself


def split(source: Path, most: int) -> list[Path]:
    """Write `source` as parts of at most about `most` bytes beside it; returns them in order, and removes `source`."""
    import gguf  # of the `train` extra, while the command line that imports this module is everybody's

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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(source.parent.glob(f"{source.stem}-?????-of-?????.gguf"))
    source.unlink()
    return parts
