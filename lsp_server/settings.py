"""All settings with their defaults and descriptions, and the function that reads them from a client's message.

The server, the settings pages of the editors (`json_schema`), `docs/settings.md` and the message about an invalid value
all use this table. Each setting is checked separately: an invalid setting is reported and replaced by its default, and
the others apply. Unknown keys are ignored, because an editor may have its own settings in the same section, such as the
path of the server.

The settings are not nested, because not every editor supports nested settings.
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
    """The type of a setting's values."""

    def read(self, value: object) -> object:
        """Return the Python value for a JSON value. Raises `ValueError` with a description of the expected values."""
        ...

    def schema(self) -> dict[str, object]:
        """Return the type as a JSON Schema."""
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
        # Lua and JavaScript clients may send 4.0 for 4. A JSON `true` is a bool, which is a subclass of int in Python.
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
            raise ValueError("a string")
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "string"}


@dataclass(frozen=True)
class _Texts:
    def read(self, value: object) -> object:
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise ValueError("a list of strings")
        return tuple(value)

    def schema(self) -> dict[str, object]:
        return {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True)
class _Shares:
    """A list of numbers that are at least 0, one for each GPU."""

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
    """Return a field of `Settings`. `scope` says which of VS Code's settings files may contain the setting."""
    return field(default=default, metadata={"kind": kind, "description": description, "scope": scope})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in the section `repoformer`. In JSON, the names are in camel case, such as `gpuLayers`."""

    # Completions
    enabled: bool = _setting(True, _Switch(), "Offer completions.")
    disabled_languages: tuple[str, ...] = _setting(
        (), _Texts(), 'Language ids without completions, such as `["markdown"]`.'
    )
    policy: Literal["selective", "always", "never"] = _setting(
        "selective",
        _Choice(("selective", "always", "never")),
        "When to add code from other files to the prompt. `selective`: when it is likely to help.",
    )
    selection: Literal["threshold", "token", "greedy"] = _setting(
        "threshold",
        _Choice(("threshold", "token", "greedy")),
        "How `selective` decides. `threshold`: compare a probability with a threshold. The probability depends on the "
        "model and the search results. `token`: the same, but the probability depends only on the model. `greedy`: "
        "retrieve if the model's most probable token asks for it.",
    )
    threshold: float | None = _setting(
        None,
        _Number(0, 1),
        "The probability above which to retrieve. Not set: the calibrated threshold of the workspace, or else the "
        "model's own.",
    )
    multiline: Literal["auto", "never"] = _setting(
        "auto",
        _Choice(("auto", "never")),
        "Whether a completion may have several lines. `auto`: where the code opens a block, a bracket or a string.",
    )
    suggest: Literal["eager", "balanced", "careful"] = _setting(
        "balanced",
        _Choice(get_args(Suggest)),
        "How likely a suggestion must be correct to appear automatically. `eager` shows all suggestions, `careful` "
        "only the most likely ones. Suggestions that you request always appear.",
    )
    learn: bool = _setting(
        True,
        _Switch(),
        "Adapt `suggest` to the workspace, based on which suggestions you accept or dismiss. Only counts are stored, "
        "on this machine. `repoformer-lsp learned` shows and resets them.",
    )
    patience: float = _setting(
        CompletionSettings().patience,
        _Number(0.1, 600),
        "Time limit of a suggestion in seconds, from the request. After this time, the generation stops at the end of "
        "the current statement. For a requested suggestion, the limit is eight times as long, and counts from the "
        "first token.",
    )
    completion: bool = _setting(
        False,
        _Switch(),
        "Also offer the suggestion in the completion list, for editors without ghost text. To apply a "
        "change, restart the server.",
    )

    # The model
    model: str = _setting(
        "auto",
        _Text(),
        "The GGUF file to use, or the name of a downloaded model of the catalog. `auto`: the largest downloaded "
        "model of the catalog that is fast enough on this machine, or else the built-in model. The speed of each "
        "model is measured once.",
    )
    layout: str = _setting(
        "",
        _Choice(("", *LAYOUTS)),
        "Order of the parts of the prompt. Empty: the layout in the model's metadata.",
    )
    left_tokens: int | None = _setting(
        None,
        _Integer(32, 65_536),
        "Maximum tokens before the cursor in the prompt. Not set: the model's own budget.",
    )
    right_tokens: int | None = _setting(
        None,
        _Integer(0, 65_536),
        "Maximum tokens after the cursor in the prompt. Not set: the model's own budget.",
    )
    context_tokens: int | None = _setting(
        None,
        _Integer(0, 65_536),
        "Maximum tokens from other files in the prompt. Not set: the model's own budget.",
    )
    chunks: int = _setting(
        10, _Integer(1, 100), "Maximum number of chunks (pieces of code from other files) in the prompt."
    )

    # The generator
    generator: Literal["self", "gguf", "openai"] = _setting(
        "self",
        _Choice(("self", "gguf", "openai")),
        "What generates the text. `self`: the model that decides. `gguf`: another, larger model (`generatorModel`). "
        "`openai`: an OpenAI-compatible server (`serverUrl`). While the other model or the server is unavailable, the "
        "model that decides generates.",
    )
    generator_model: str = _setting("", _Text(), "The GGUF file that generates, or the name of the server's model.")
    server_url: str = _setting(
        "http://127.0.0.1:8080/v1",
        _Text(),
        "Address of the server, which usually ends with `/v1`. The API key comes from the environment variable "
        "`REPOFORMER_API_KEY`.",
        scope="machine",  # a workspace must not choose where its code is sent
    )
    server_prompt: str = _setting(
        SUFFIX,
        _Choice(tuple(FAMILIES)),
        "Prompt format for the server's model. `suffix`: the server makes the prompt itself. The other values are "
        "families of models, whose markers the prompt contains.",
    )
    server_decides: bool = _setting(
        False, _Switch(), "Let the server's model, which must be a Repoformer, decide when to retrieve."
    )

    server_timeout: float = _setting(
        READ_SECONDS,
        _Number(0.5, 600),
        "Maximum time to wait for each token of the server, in seconds. After this time, the local model generates "
        "instead. A large model on a CPU may need many seconds for its first token.",
    )

    # The machine
    context_size: int = _setting(
        _ENGINE.context_size,
        _Integer(512, 1_048_576),
        "Size of the model's context in tokens. The prompts of the documents that you edited last share the context.",
    )
    threads: int = _setting(
        _ENGINE.threads,
        _Integer(0, 512),
        "Number of CPU threads for the model. 0: the number of physical cores, minus one if there are more than two.",
    )
    gpu_layers: int = _setting(
        _ENGINE.gpu_layers, _Integer(-1, 10_000), "Number of layers of the model that run on the GPU. -1: all layers."
    )
    main_gpu: int = _setting(_ENGINE.main_gpu, _Integer(0, 64), "The GPU to use, counted from 0.")
    tensor_split: tuple[float, ...] = _setting(
        _ENGINE.tensor_split, _Shares(), "Share of the model on each GPU, such as `[3, 1]`."
    )
    flash_attention: Literal["auto", "on", "off"] = _setting(
        _ENGINE.flash_attention,
        _Choice(get_args(FlashAttention)),
        "Whether to use flash attention, which needs less memory. `auto`: llama.cpp decides.",
    )
    kv_cache_type: Literal["f32", "f16", "q8_0", "q4_0"] = _setting(
        _ENGINE.kv_cache_type,
        _Choice(get_args(KvCacheType)),
        "Number format of the KV cache. Smaller formats need less memory.",
    )

    llama_library: str = _setting(
        _ENGINE.library,
        _Text(),
        "The llama.cpp library (`libllama.so`, `llama.dll`) to load. Empty: the installed library.",
        scope="machine",  # a workspace must not choose which native code runs
    )

    unload_after_minutes: int = _setting(
        int(_ENGINE.idle_minutes),
        _Integer(0, 10_080),
        "Minutes without a request after which the model is unloaded. The next request loads it again. 0: never.",
    )
    saved_prompts_megabytes: int = _setting(
        256,
        _Integer(0, 65_536),
        "Maximum size in megabytes of the saved prompts in your cache folder. What the model has computed for the "
        "prompts of your files is saved there, so that a file that you open again is ready sooner. The saved data "
        "contains information about your code. Only you can read it. 0: save nothing.",
        scope="machine",  # a workspace must not choose what is written to the disk
    )
    on_battery: Literal["always", "smaller", "invoked"] = _setting(
        "always",
        _Choice(("always", "smaller", "invoked")),
        "What changes when the machine runs on battery. `always`: nothing. `smaller`: a completion ends with its line, "
        "and no work is done in advance. `invoked`: completions are made only on request.",
    )

    # The index
    include: tuple[str, ...] = _setting(
        (), _Texts(), "`.gitignore` patterns of files to index even if an ignore file excludes them."
    )
    exclude: tuple[str, ...] = _setting((), _Texts(), "`.gitignore` patterns of more files to exclude from the index.")

    log_level: Literal["error", "warning", "info", "debug"] = _setting(
        "info", _Choice(("error", "warning", "info", "debug")), "Level of the messages in the log."
    )


DEFAULTS = Settings()


def read_settings(*layers: object) -> tuple[Settings, tuple[str, ...]]:
    """Read settings from `layers`, which are JSON values of a client. Later layers override earlier ones.

    Return the settings, and a message for each invalid one. A layer that is None is ignored. A value that is null or an
    empty string counts as not set, because editors send such values as defaults.
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
    """Return the name of a field in JSON, such as `gpuLayers` for `gpu_layers`."""
    first, *rest = each.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def kind_of(each: Field[Any]) -> SettingKind:
    """Return the type of a field's values."""
    kind: SettingKind = each.metadata["kind"]
    return kind


def json_schema() -> dict[str, dict[str, object]]:
    """Return a JSON Schema property for each setting, by its name, such as `repoformer.gpuLayers`.

    A property has the type, the default and the description of a setting.
    """
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
    """Return whether `value` is a string without NUL and lone surrogates, which file names cannot contain."""
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
