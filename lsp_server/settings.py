"""Every setting, documented beside its default, and the reading of what a client sends.

One table serves four readers: the server, the settings pages of the editors (`json_schema`), the README's table, and
the message about a wrong value. Settings come from outside, so each is checked by itself: a wrong one is named and its
default is used, the others hold. Keys that no field has are left alone, because editors keep settings of their own
(where the server is, say) in the same section.

The values are flat on purpose: every editor can write `repoformer.threads`, not every editor can nest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, Protocol, get_args

from policy.completion.request import CompletionSettings
from policy.engine.settings import EngineSettings, FlashAttention, KvCacheType
from policy.gating.keep import Suggest
from policy.generators.retry import READ_SECONDS
from policy.generators.text import FAMILIES, SUFFIX
from policy.prompting.prompt import LAYOUTS

SECTION = "repoformer"
_ENGINE = EngineSettings()
_LARGEST_SHARE = 1e6


class SettingKind(Protocol):
    """What values a setting takes."""

    def read(self, value: object) -> object:
        """Return the value as the field holds it. Raises `ValueError` that says what was expected."""
        ...

    def schema(self) -> dict[str, object]:
        """The same as a JSON Schema."""
        ...


@dataclass(frozen=True)
class _Switch:
    def read(self, value: object) -> object:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class _Choice:
    options: tuple[str, ...]

    def read(self, value: object) -> object:
        if value not in self.options:
            raise ValueError(f"one of {', '.join(map(repr, self.options))}")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "string", "enum": list(self.options)}


@dataclass(frozen=True)
class _Integer:
    minimum: int
    maximum: int

    def read(self, value: object) -> object:
        # Lua and JavaScript clients may send 4.0 for 4; JSON's true is an int in Python.
        whole = not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
        if not whole or not self.minimum <= int(value) <= self.maximum:  # type: ignore[call-overload]
            raise ValueError(f"a whole number from {self.minimum} to {self.maximum}")
        return int(value)  # type: ignore[call-overload]

    def schema(self) -> dict[str, object]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class _Number:
    minimum: float
    maximum: float

    def read(self, value: object) -> object:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.minimum <= value <= self.maximum:  # type: ignore[operator]
            raise ValueError(f"a number from {self.minimum:g} to {self.maximum:g}")
        return float(value)  # type: ignore[arg-type]

    def schema(self) -> dict[str, object]:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class _Text:
    def read(self, value: object) -> object:
        if not _is_text(value):
            raise ValueError("a text")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "string"}


@dataclass(frozen=True)
class _Texts:
    def read(self, value: object) -> object:
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise ValueError("a list of texts")
        return tuple(value)

    def schema(self) -> dict[str, object]:
        return {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True)
class _Shares:
    """Numbers of zero or more, one a device."""

    def read(self, value: object) -> object:
        numbers = isinstance(value, list) and all(
            isinstance(item, int | float) and not isinstance(item, bool) and 0 <= item <= _LARGEST_SHARE
            for item in value
        )
        if not numbers:
            raise ValueError(f"a list of numbers from 0 to {_LARGEST_SHARE:g}")
        return tuple(map(float, value))  # type: ignore[call-overload]

    def schema(self) -> dict[str, object]:
        return {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": _LARGEST_SHARE}}


def _setting(default: object, kind: SettingKind, description: str, scope: str = "") -> Any:
    """A field of `Settings`. `scope` is VS Code's: who may set it, if not everybody."""
    return field(default=default, metadata={"kind": kind, "description": description, "scope": scope})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a person can set, section `repoformer`. In JSON the names are in camel case: `gpuLayers`."""

    # What a completion does
    enabled: bool = _setting(True, _Switch(), "Offer completions at all.")
    disabled_languages: tuple[str, ...] = _setting(
        (), _Texts(), 'Language ids in which no completions are offered, such as `["markdown"]`.'
    )
    policy: Literal["selective", "always", "never"] = _setting(
        "selective",
        _Choice(("selective", "always", "never")),
        "When to put code from other files before the model: when the model asks for it, always, or never.",
    )
    selection: Literal["threshold", "token", "greedy"] = _setting(
        "threshold",
        _Choice(("threshold", "token", "greedy")),
        "How `selective` decides: by a threshold on what the model asks for together with what was found, by a "
        "threshold on the model's own probability alone, or by its likeliest token.",
    )
    threshold: float | None = _setting(
        None, _Number(0, 1), "Probability over which to retrieve. Empty: the threshold that belongs to the model."
    )
    multiline: Literal["auto", "never"] = _setting(
        "auto",
        _Choice(("auto", "never")),
        "Whether a completion may have several lines: where the syntax says that a block is open, or never.",
    )
    suggest: Literal["eager", "balanced", "careful"] = _setting(
        "balanced",
        _Choice(get_args(Suggest)),
        "How likely a suggestion that comes by itself has to be right to be shown: `eager` shows all, `careful` few. "
        "One asked for with a key is always shown.",
    )
    learn: bool = _setting(
        True,
        _Switch(),
        "Adapt `suggest` to a workspace, by how many suggestions are accepted there. Only counts are stored, on this "
        "machine; `repoformer-lsp learned` shows and resets them.",
    )
    patience: float = _setting(
        CompletionSettings().patience,
        _Number(0.1, 600),
        "Seconds of generating after which a suggestion is cut off at a good place. One asked for has five times as "
        "long.",
    )
    completion: bool = _setting(
        False,
        _Switch(),
        "Also offer the suggestion in the completion list, for editors without ghost text. Read at the start.",
    )

    # The model
    model: str = _setting(
        "auto",
        _Text(),
        "A GGUF file to use. `auto`: the best installed model that writes a line within 0.6 s on this machine.",
    )
    layout: str = _setting(
        "",
        _Choice(("", *LAYOUTS)),
        "Order of the parts of the prompt. Empty: the one that the model's metadata names.",
    )
    left_tokens: int | None = _setting(
        None, _Integer(32, 65_536), "Tokens left of the cursor that the model reads. Empty: the model's own budget."
    )
    right_tokens: int | None = _setting(
        None, _Integer(0, 65_536), "Tokens right of the cursor that the model reads. Empty: the model's own budget."
    )
    context_tokens: int | None = _setting(
        None, _Integer(0, 65_536), "Tokens of other files that the model reads. Empty: the model's own budget."
    )
    chunks: int = _setting(10, _Integer(1, 100), "Most pieces of code from other files to put before the model.")

    # Who writes
    generator: Literal["self", "gguf", "openai"] = _setting(
        "self",
        _Choice(("self", "gguf", "openai")),
        "Who writes: the model that decides, a larger GGUF (`generatorModel`), or an OpenAI-compatible server "
        "(`serverUrl`). The local model decides in any case, and writes while the other cannot.",
    )
    generator_model: str = _setting(
        "", _Text(), "The GGUF file that writes, or the server's own name for the model that does."
    )
    server_url: str = _setting(
        "http://127.0.0.1:8080/v1",
        _Text(),
        "Address of the server, as a rule with `/v1`. Its key is `REPOFORMER_API_KEY` in the environment.",
        scope="machine",  # a workspace must not say where its code is sent to
    )
    server_prompt: str = _setting(
        SUFFIX,
        _Choice(tuple(FAMILIES)),
        "How the server's model is prompted: the server takes a `suffix`, or the markers of a family of models.",
    )
    server_decides: bool = _setting(
        False, _Switch(), "The server's model is a Repoformer and says when to retrieve, by its `logprobs`."
    )

    server_timeout: float = _setting(
        READ_SECONDS,
        _Number(0.5, 600),
        "Seconds to wait for the server's first token, and for each further one, until the local model writes. A large "
        "model on a CPU may need many.",
    )

    # The machine
    context_size: int = _setting(
        _ENGINE.context_size,
        _Integer(512, 1_048_576),
        "Size of the model's context in tokens; the documents that were edited last share it.",
    )
    threads: int = _setting(
        _ENGINE.threads, _Integer(0, 512), "CPU threads of the model. 0: physical cores, one left for the editor."
    )
    gpu_layers: int = _setting(
        _ENGINE.gpu_layers, _Integer(-1, 10_000), "Layers of the model on the GPU. -1: all of them."
    )
    main_gpu: int = _setting(_ENGINE.main_gpu, _Integer(0, 64), "Which GPU, counted from 0.")
    tensor_split: tuple[float, ...] = _setting(
        _ENGINE.tensor_split, _Shares(), "How to share the model among GPUs, such as `[3, 1]`."
    )
    flash_attention: Literal["auto", "on", "off"] = _setting(
        _ENGINE.flash_attention, _Choice(get_args(FlashAttention)), "Flash attention."
    )
    kv_cache_type: Literal["f32", "f16", "q8_0", "q4_0"] = _setting(
        _ENGINE.kv_cache_type,
        _Choice(get_args(KvCacheType)),
        "Number format of the KV cache; smaller ones save memory.",
    )

    llama_library: str = _setting(
        _ENGINE.library,
        _Text(),
        "A llama.cpp library (`libllama.so`, `llama.dll`) to load. Empty: the installed one.",
        scope="machine",  # a workspace must not say what native code runs
    )

    unload_after_minutes: int = _setting(
        int(_ENGINE.idle_minutes),
        _Integer(0, 10_080),
        "Minutes without a request after which the model leaves memory, until the next one. 0: it stays.",
    )
    on_battery: Literal["always", "smaller", "invoked"] = _setting(
        "always",
        _Choice(("always", "smaller", "invoked")),
        "On battery: complete as ever; no more than the rest of a line, and nothing ahead; or only where a completion "
        "is asked for with a key.",
    )

    # The index
    include: tuple[str, ...] = _setting(
        (), _Texts(), "What to index although an ignore file leaves it out, as `.gitignore` patterns."
    )
    exclude: tuple[str, ...] = _setting(
        (), _Texts(), "What not to index beside what `.gitignore` names, as `.gitignore` patterns."
    )

    log_level: Literal["error", "warning", "info", "debug"] = _setting(
        "info", _Choice(("error", "warning", "info", "debug")), "How much to write into the log."
    )


DEFAULTS = Settings()


def read_settings(*layers: object) -> tuple[Settings, tuple[str, ...]]:
    """Read settings out of what a client sent, later layers over earlier ones.

    Returns the settings and what was wrong with them, a line a setting. A layer that is `None` counts as absent; a
    setting that is null or an empty text counts as not set, since editors send their own defaults too.
    """
    given: dict[str, object] = {}
    problems: list[str] = []
    for layer in layers:
        if isinstance(layer, Mapping):
            given |= {str(key): value for key, value in layer.items() if value is not None and value != ""}
        elif layer is not None:
            problems.append(f"{SECTION} = {_shown(layer)} (expected an object)")
    values: dict[str, Any] = {}
    for each in fields(Settings):
        name = json_name(each)
        if name not in given:
            continue
        try:
            values[each.name] = kind_of(each).read(given[name])
        except ValueError as expected:
            problems.append(f"{SECTION}.{name} = {_shown(given[name])} (expected {expected})")
    return Settings(**values), tuple(problems)


def json_name(each: Field[Any]) -> str:
    """The name of a field in JSON: `gpu_layers` is `gpuLayers`."""
    first, *rest = each.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def kind_of(each: Field[Any]) -> SettingKind:
    """What values a field takes."""
    kind: SettingKind = each.metadata["kind"]
    return kind


def json_schema() -> dict[str, dict[str, object]]:
    """Every setting as a JSON Schema property with its default and description, by its dotted name."""
    return {f"{SECTION}.{json_name(each)}": _property(each) for each in fields(Settings)}


def _property(each: Field[Any]) -> dict[str, object]:
    schema = kind_of(each).schema()
    if each.default is None:
        schema["type"] = [schema["type"], "null"]
    schema["default"] = list(each.default) if isinstance(each.default, tuple) else each.default
    if scope := each.metadata["scope"]:
        schema["scope"] = scope
    schema["markdownDescription"] = each.metadata["description"]
    return schema


def _is_text(value: object) -> bool:
    """Whether a value is a text that a file or a header can have: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except RecursionError:
        return "…"
    return text if len(text) <= 60 else text[:57] + "…"
