from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.settings import DEFAULTS, Settings, json_name, json_schema, read_settings

RIGHT = {
    "enabled": False,
    "disabledLanguages": ["markdown"],
    "policy": "never",
    "selection": "greedy",
    "threshold": 1,
    "multiline": "never",
    "completion": True,
    "model": "~/model.gguf",
    "layout": "fim-psm",
    "leftTokens": 64,
    "rightTokens": 0,
    "contextTokens": 128,
    "suggest": "careful",
    "learn": False,
    "patience": 2.5,
    "chunks": 3,
    "contextSize": 4096,
    "threads": 4.0,
    "gpuLayers": 0,
    "mainGpu": 1,
    "tensorSplit": [3, 1],
    "flashAttention": "on",
    "kvCacheType": "q8_0",
    "llamaLibrary": "/opt/libllama.so",
    "generator": "openai",
    "generatorModel": "coder",
    "serverUrl": "https://models.example/v1",
    "serverPrompt": "qwen",
    "serverDecides": True,
    "serverTimeout": 60,
    "unloadAfterMinutes": 5,
    "savedPromptsMegabytes": 64,
    "onBattery": "invoked",
    "include": ["generated/"],
    "exclude": ["*.min.js"],
    "logLevel": "debug",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_every_setting_can_be_set() -> None:
    assert set(RIGHT) == {json_name(each) for each in fields(Settings)}
    settings, problems = read_settings(RIGHT)
    assert problems == ()
    unchanged = [each.name for each in fields(Settings) if getattr(settings, each.name) == getattr(DEFAULTS, each.name)]
    assert unchanged == []
    assert settings.tensor_split == (3.0, 1.0)
    assert settings.threads == 4
    assert hash(settings), "settings are not hashable"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("enabled", "yes", "true or false"),
        ("disabledLanguages", "python", "a list of strings"),
        ("disabledLanguages", [1], "a list of strings"),
        ("policy", "sometimes", "one of 'selective', 'always', 'never'"),
        ("policy", ["selective"], "one of"),
        ("threshold", 1.5, "a number from 0 to 1"),
        ("threshold", float("nan"), "a number from 0 to 1"),
        ("threads", "four", "a whole number from 0 to 512"),
        ("threads", 1.5, "a whole number"),
        ("threads", True, "a whole number"),
        ("threads", float("inf"), "a whole number"),
        ("threads", -1, "a whole number"),
        ("gpuLayers", -2, "a whole number from -1"),
        ("tensorSplit", [1, -1], "a list of numbers from 0 to 1e+06"),
        ("model", 7, "a string"),
    ],
)
def test_a_wrong_value_is_named_and_the_rest_holds(name: str, value: object, expected: str) -> None:
    other = "chunks" if name != "chunks" else "threads"
    settings, problems = read_settings({name: value, other: 5})
    assert len(problems) == 1
    assert problems[0].startswith(f"repoformer.{name} = ")
    assert expected in problems[0]
    assert settings == read_settings({other: 5})[0]


def test_later_layers_win_and_null_means_not_set() -> None:
    settings, problems = read_settings({"threads": 2, "chunks": 3}, None, {"threads": 4, "chunks": None})
    assert (settings.threads, settings.chunks, problems) == (4, 3, ())


def test_a_section_that_is_no_object() -> None:
    settings, problems = read_settings(["x"], {"threads": 2})
    assert settings.threads == 2
    assert problems == ('repoformer = ["x"] (expected an object)',)


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    _, problems = read_settings({"policy": "x" * 500})
    assert len(problems[0]) < 200


def test_an_empty_string_overrides_nothing() -> None:
    assert read_settings({"model": "/m.gguf"}, {"model": ""})[0].model == "/m.gguf"


def test_settings_of_the_editor_in_the_same_section_are_left_alone() -> None:
    assert read_settings({"serverPath": "/usr/bin/x", "trace": {"server": "off"}}) == (DEFAULTS, ())


@given(json_values)
def test_nothing_a_client_sends_raises(sent: object) -> None:
    read_settings(sent)
    for each in fields(Settings):
        settings, problems = read_settings({json_name(each): sent})
        assert problems == () or settings == DEFAULTS


def test_the_schema_accepts_the_defaults_and_describes_each() -> None:
    schema = json_schema()
    assert len(schema) == len(fields(Settings))
    for each in fields(Settings):
        row = schema[f"repoformer.{json_name(each)}"]
        assert row["markdownDescription"]
        sent = row["default"]
        assert read_settings({json_name(each): sent}) == (DEFAULTS, ())
