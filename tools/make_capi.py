# /// script
# requires-python = ">=3.10"
# dependencies = ["pycparser>=2.22", "ruff>=0.8"]
# ///
"""`python tools/make_capi.py`: write policy/engine/worker/capi.py from the headers of the supported llama.cpp builds.

The script reads the headers from wheels of llama-cpp-py-sync. The wheel of a llama.cpp build contains the text of its
`llama.h`, preprocessed for cffi. The script runs no code of a wheel. It needs pycparser and ruff.

To support another build, add it to `BUILDS`, run the script, and load a library of that build. If the library has other
default values than `DEFAULTS`, the check at load time (`policy.engine.worker.native`) reports them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pycparser import CParser, c_ast  # type: ignore[import-untyped, unused-ignore]

TARGET = Path(__file__).resolve().parent.parent / "policy/engine/worker/capi.py"
# The supported llama.cpp builds, each with the version that its function `llama_version` returns.
BUILDS = {11413: "0.5.0", 11548: "0.6.0"}

STRUCTS = ("llama_batch", "llama_model_params", "llama_context_params")
CALLBACKS = ("ggml_log_callback", "ggml_abort_callback")
CONSTANTS = (
    "GGML_LOG_LEVEL_ERROR",
    "GGML_TYPE_F32",
    "GGML_TYPE_F16",
    "GGML_TYPE_Q4_0",
    "GGML_TYPE_Q8_0",
    "LLAMA_FLASH_ATTN_TYPE_AUTO",
    "LLAMA_FLASH_ATTN_TYPE_DISABLED",
    "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "LLAMA_POOLING_TYPE_UNSPECIFIED",
    "LLAMA_POOLING_TYPE_MEAN",
)
FUNCTIONS = (
    "llama_backend_init",
    "llama_batch_free",
    "llama_batch_init",
    "llama_context_default_params",
    "llama_decode",
    "llama_free",
    "llama_get_embeddings_seq",
    "llama_get_logits_ith",
    "llama_get_memory",
    "llama_init_from_model",
    "llama_log_set",
    "llama_max_devices",
    "llama_memory_clear",
    "llama_memory_seq_cp",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_rm",
    "llama_model_default_params",
    "llama_model_free",
    "llama_model_get_vocab",
    "llama_model_is_hybrid",
    "llama_model_is_recurrent",
    "llama_model_load_from_file",
    "llama_model_meta_count",
    "llama_model_meta_key_by_index",
    "llama_model_meta_val_str_by_index",
    "llama_model_n_ctx_train",
    "llama_model_n_embd",
    "llama_n_batch",
    "llama_n_ctx",
    "llama_n_ctx_seq",
    "llama_n_seq_max",
    "llama_n_ubatch",
    "llama_print_system_info",
    "llama_set_abort_callback",
    "llama_state_seq_get_data",
    "llama_state_seq_get_size",
    "llama_state_seq_set_data",
    "llama_supports_gpu_offload",
    "llama_supports_mmap",
    "llama_token_to_piece",
    "llama_tokenize",
    "llama_vocab_bos",
    "llama_vocab_eos",
    "llama_vocab_fim_mid",
    "llama_vocab_fim_pre",
    "llama_vocab_fim_rep",
    "llama_vocab_fim_sep",
    "llama_vocab_fim_suf",
    "llama_vocab_get_add_bos",
    "llama_vocab_is_eog",
    "llama_vocab_n_tokens",
)
# The fields that are not 0 in the structs that `llama_model_default_params` and `llama_context_default_params` return,
# with their values (llama.cpp's src/llama-model.cpp and src/llama-context.cpp).
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "llama_model_params": {
        "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "use_extra_bufts": 1,
    },
    "llama_context_params": {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max_per_seq": 1, "n_threads": 4,
        "n_threads_batch": 4, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1,
        "yarn_ext_factor": -1, "yarn_attn_factor": -1, "yarn_beta_fast": -1, "yarn_beta_slow": -1, "defrag_thold": -1,
        "type_k": 1, "type_v": 1, "offload_kqv": 1, "no_perf": 1, "op_offload": 1, "swa_full": 1,
    },
}  # fmt: skip

# The wheels' headers use these types without declaring them, because cffi knows them. pycparser does not.
_PRELUDE = "".join(
    f"typedef int {name};\n"
    for name in ("bool", "size_t", "FILE", "int8_t", "uint8_t", "int16_t", "int32_t", "uint32_t", "int64_t", "uint64_t")
)
_SCALARS = {
    **{f"{sign}int{bits}_t": f"c_{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "c_bool", "char": "c_char", "double": "c_double", "float": "c_float", "int": "c_int", "size_t": "c_size_t",
    "unsigned int": "c_uint",
}  # fmt: skip


@dataclass
class Header:
    """The declarations of one build's header, by name."""

    typedefs: dict[str, c_ast.Node]
    structs: dict[str, c_ast.Struct]
    functions: dict[str, c_ast.FuncDecl]
    constants: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> Header:
        """Parse the C declarations of a header. Lines of the preprocessor are ignored."""
        lines = [line.partition("//")[0] for line in text.splitlines() if not line.startswith("#")]
        header = cls({}, {}, {}, {})
        for node in CParser().parse(_PRELUDE + "\n".join(lines)):
            if isinstance(node, c_ast.Typedef):
                header.typedefs[node.name] = node.type
            elif isinstance(node.type, c_ast.FuncDecl):
                header.functions[node.name] = node.type
            header._gather(node.type)
        return header

    def _gather(self, node: c_ast.Node) -> None:
        inner = node.type if isinstance(node, c_ast.TypeDecl) else node
        if isinstance(inner, c_ast.Struct) and inner.decls:
            self.structs[inner.name] = inner
        if isinstance(inner, c_ast.Enum) and inner.values:
            value = -1
            for item in inner.values.enumerators:
                value = self._value(item.value) if item.value is not None else value + 1
                self.constants[item.name] = value

    def _value(self, node: c_ast.Node) -> int:
        if isinstance(node, c_ast.Constant):
            return int(node.value, 0)
        if isinstance(node, c_ast.ID):
            return self.constants[node.name]
        if isinstance(node, c_ast.UnaryOp) and node.op == "-":
            return -self._value(node.expr)
        if isinstance(node, c_ast.BinaryOp) and node.op in {"|", "<<"}:
            left, right = self._value(node.left), self._value(node.right)
            return left | right if node.op == "|" else left << right
        raise SystemExit(f"cannot compute the value of this constant: {node}")

    # -- C types as ctypes --------------------------------------------------------------------------------------------

    def name(self, node: c_ast.Node, *, parameter: bool = False) -> str:
        """Return the ctypes expression for a C type.

        Pointers to a few types, such as `char`, have their own expression. All others are `c_void_p`.
        """
        if isinstance(node, c_ast.PtrDecl):
            return self._pointer(node, parameter)
        assert isinstance(node, c_ast.TypeDecl), node
        inner = node.type
        if isinstance(inner, c_ast.Enum):
            return "c_int"
        if isinstance(inner, c_ast.Struct):
            return str(inner.name)
        name = " ".join(inner.names)
        if name == "void":
            return "None"
        if name in _SCALARS:
            return _SCALARS[name]
        return self.name(self.typedefs[name], parameter=parameter)

    def _pointer(self, node: c_ast.PtrDecl, parameter: bool) -> str:
        target = node.type
        if isinstance(target, c_ast.TypeDecl) and isinstance(target.type, c_ast.IdentifierType):
            match " ".join(target.type.names):
                case "char":
                    return "c_char_p"
                case "int8_t" | "int32_t" | "float" | "llama_token" | "llama_pos" | "llama_seq_id" as name:
                    return f"POINTER({_SCALARS.get(name, 'c_int32')})"
        if not parameter and isinstance(target, c_ast.PtrDecl):
            inner = self._pointer(target, parameter)
            return f"POINTER({inner})" if inner.startswith("POINTER") else "c_void_p"
        return "c_void_p"

    def callback(self, name: str) -> str:
        """Return the ctypes expression for the type `name` of a function pointer: a call of `CFUNCTYPE`."""
        function = self.typedefs[name].type
        parts = [self.name(function.type), *(self.name(each.type) for each in function.args.params)]
        return f"CFUNCTYPE({', '.join(parts)})"

    def fields(self, struct: str) -> list[tuple[str, str]]:
        """Return (name, ctypes expression) for each field of a struct."""
        return [(each.name, self.name(each.type)) for each in self.structs[struct].decls]

    def signature(self, function: str) -> str:
        """Return the ctypes expression for a function: the tuple (type of the result, types of the parameters)."""
        declared = self.functions[function]
        parameters = [each.type for each in declared.args.params] if declared.args else []
        names = [self.name(each, parameter=True) for each in parameters]
        names = [] if names == ["None"] else names
        return f"({self.name(declared.type)}, [{', '.join(names)}])"


def headers() -> Iterator[tuple[int, Header]]:
    """Download the wheel of each build. Yield the number of each build and its header."""
    with tempfile.TemporaryDirectory() as folder:
        for build in BUILDS:
            package = f"llama-cpp-py-sync==0.{build}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            options = ["--only-binary=:all:", "--platform=win_amd64", f"--dest={folder}/{build}"]
            subprocess.run([*command, *options, package], check=True)
            (wheel,) = Path(folder, str(build)).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                module = ast.parse(archive.read("llama_cpp_py_sync/_cffi_bindings.py"))
            (text,) = (
                node.value.value
                for node in module.body
                if isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "_LLAMA_H_CDEF"
            )
            yield build, Header.parse(str(text))


def write(found: Mapping[int, Header]) -> str:
    """Return the text of `capi.py` for the headers of all builds, by number.

    Raises `SystemExit` if the builds differ in more than the fields of structs.
    """
    newest = found[max(found)]
    for function in FUNCTIONS:
        if len({header.signature(function) for header in found.values()}) != 1:
            raise SystemExit(f"{function} differs between the builds")
    for constant in CONSTANTS:
        if len({header.constants[constant] for header in found.values()}) != 1:
            raise SystemExit(f"{constant} differs between the builds")
    lines = [
        '"""The part of llama.cpp\'s C API that this project uses. `tools/make_capi.py` writes this file; '
        "do not edit it.",
        "",
        "The declarations are from the headers of the llama.cpp builds "
        f"{' and '.join(f'b{build}' for build in found)}. A struct that differs between these",
        "builds has a class for each build. `policy.engine.worker.native` chooses and checks the classes when it loads "
        "a library.",
        '"""',
        "",
        "from collections.abc import Mapping",
        "from ctypes import (",
        *(
            f"    {name},"
            for name in sorted(
                ["CFUNCTYPE", "POINTER", "Structure", "c_bool", "c_char_p", "c_float", "c_int", "c_int8", "c_int32",
                 "c_size_t", "c_uint32", "c_void_p"]
            )
        ),
        ")",
        "from dataclasses import dataclass",
        "from typing import Any",
        "",
        *(f"{name} = {newest.constants[name]}" for name in CONSTANTS),
        "LLAMA_TOKEN_NULL = -1",
        "",
        *(f"{name} = {newest.callback(name)}" for name in CALLBACKS),
        "",
    ]  # fmt: skip
    classes: dict[tuple[str, int], str] = {}
    for struct in STRUCTS:
        written: dict[str, str] = {}
        for build, header in found.items():
            body = "\n".join(f'        ("{name}", {type_}),' for name, type_ in header.fields(struct))
            if body not in written:
                name = written[body] = struct if len(written) == 0 else f"{struct}_b{build}"
                docstring = f'    """The struct `{struct}` of build b{build} and later builds."""'
                lines += ["", f"class {name}(Structure):", docstring, ""]
                lines += ["    _fields_ = (", body, "    )", ""]
            classes[struct, build] = written[body]
    lines += [
        "",
        "@dataclass(frozen=True, slots=True)",
        "class Layout:",
        '    """The structs of a llama.cpp build. `version` is what its `llama_version` returns, without a suffix like '
        '"-dev"."""',
        "",
        "    build: int",
        "    version: str",
        *(f"    {struct.removeprefix('llama_')}: Any" for struct in STRUCTS),
        "",
        "",
        "LAYOUTS = (",
        *(
            f'    Layout({build}, "{BUILDS[build]}", {", ".join(classes[struct, build] for struct in STRUCTS)}),'
            for build in found
        ),
        ")",
        "",
        "# The default values of the fields whose default is not 0.",
        "DEFAULTS: Mapping[str, Mapping[str, float]] = {",
    ]
    for struct, values in DEFAULTS.items():
        lines += [f'    "{struct}": {{', *(f'        "{name}": {value},' for name, value in values.items()), "    },"]
    lines += [
        "}",
        "",
        "# The result and the parameters of each function. Structs are given by name, because their classes depend on "
        "the layout.",
        "FUNCTIONS: Mapping[str, tuple[Any, list[Any]]] = {",
        *(f'    "{function}": {_without_structs(newest.signature(function))},' for function in FUNCTIONS),
        "}",
        "",
    ]
    return "\n".join(lines)


def _without_structs(signature: str) -> str:
    for struct in STRUCTS:
        signature = signature.replace(struct, f'"{struct}"')
    return signature


def main() -> None:
    """Write `capi.py`, and format it."""
    TARGET.write_text(write(dict(headers())), "utf-8")
    for command in (["check", "--fix", "--select=I"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(TARGET)], check=True)


if __name__ == "__main__":
    main()
