"""Saved prompts: the files, their checks and limits; and that texts are identical with and without a saved state."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from indexer.model import Chunk, Cursor
from policy.engine.messages import PromptStats
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.engine.worker import saved_state
from policy.engine.worker.cache import KvCache
from policy.engine.worker.completion_model import CompletionModel, Piece, longest_sequence
from policy.engine.worker.llama import Llama
from policy.engine.worker.saved_state import SavedStates
from policy.models import locate

DATA = memoryview(bytes(range(256)) * 16)
TOKENS = list(range(1000, 1100))
LIMIT = 1 << 30
SOURCE = Path(locate.__file__).read_text("utf-8")
BUDGETS = {"left": 96, "right": 32, "context": 48}
CHUNKS = [
    Chunk("/w", "sizes.py", 1, 2, "def size_of(path):\n    return path.stat().st_size\n", "function"),
    Chunk("/w", "errors.py", 1, 2, "class ModelMissing(Exception):\n    pass\n", "class"),
]


def never() -> bool:
    return False


class Folder:
    """A folder of states, and the messages about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[str] = []

    def open(self, key: str = "model", max_bytes: int = LIMIT) -> SavedStates:
        return SavedStates(key, max_bytes, self.log.append, self.path)

    def files(self) -> list[Path]:
        return sorted(file for file in self.path.rglob("*") if file.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "states")


def loaded(states: SavedStates, tokens: Sequence[int] = TOKENS) -> bytes | None:
    """Return the cells that are saved for `tokens`, or None."""
    file, _length = states.find(tokens)
    found = states.load(file) if file else None
    return found.data.tobytes() if found else None


def age(file: Path, seconds: float) -> None:
    status = file.stat()
    os.utime(file, (status.st_atime - seconds, status.st_mtime - seconds))


def test_a_saved_state_is_loaded_by_the_next_process(folder: Folder) -> None:
    assert folder.open().save("document", TOKENS, DATA, never)
    states = folder.open()
    file, length = states.find([*TOKENS[:70], 1, 2])
    assert file is not None
    assert length == 70
    found = states.load(file)
    assert found is not None
    assert (found.tokens, found.data.tobytes()) == (TOKENS, DATA.tobytes())
    assert folder.log == []


def test_only_the_user_can_read_the_files(folder: Folder) -> None:
    folder.path.mkdir(mode=0o755)
    folder.open().save("document", TOKENS, DATA, never)
    (file,) = folder.files()
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [stat.S_IMODE(each.stat().st_mode) for each in (file.parent, folder.path)] == [0o700, 0o700]


def test_a_state_of_another_key_is_not_found(folder: Folder) -> None:
    folder.open("model f16").save("document", TOKENS, DATA, never)
    assert loaded(folder.open("model q8_0")) is None
    assert loaded(folder.open("model f16")) is not None


def flip_a_bit(content: bytearray) -> None:
    content[-7] ^= 1


def change_a_token(content: bytearray) -> None:
    content[70] ^= 1


def cut_off(content: bytearray) -> None:
    del content[-100:]


def cut_in_the_header(content: bytearray) -> None:
    del content[20:]


def of_another_version(content: bytearray) -> None:
    content[8] += 1


@pytest.mark.parametrize("damage", [flip_a_bit, change_a_token, cut_off, cut_in_the_header, of_another_version])
def test_a_damaged_file_is_removed(folder: Folder, damage: Callable[[bytearray], None]) -> None:
    for slot in ("a", "b"):
        folder.open().save(slot, TOKENS, DATA, never)
    for file in folder.files():
        content = bytearray(file.read_bytes())
        damage(content)
        file.write_bytes(content)
    states = folder.open()
    assert loaded(states) is None
    assert loaded(states) is None
    assert folder.files() == []
    assert len(folder.log) == 1, "one message for all damaged files"


def test_a_file_of_another_key_is_removed(folder: Folder) -> None:
    folder.open("other").save("document", TOKENS, DATA, never)
    (other,) = folder.files()
    folder.open().save("document", TOKENS[:80], DATA, never)
    (own,) = {*folder.files()} - {other}
    other.replace(own)
    assert loaded(folder.open()) is None
    assert folder.files() == []


def test_the_least_recently_used_states_are_removed_first(folder: Folder) -> None:
    states = folder.open(max_bytes=3 * (len(DATA) + 1000))
    for number in range(3):
        states.save(f"{number}", [number, *TOKENS], DATA, never)
        age(max(folder.files(), key=lambda file: file.stat().st_mtime), 100 - 10 * number)
    assert loaded(states, [0, *TOKENS]) is not None  # which is then the most recently used one
    states.save("3", [3, *TOKENS], DATA, never)
    assert [loaded(states, [number, *TOKENS]) is not None for number in range(4)] == [True, False, True, True]
    assert [loaded(folder.open(), [number, *TOKENS]) is not None for number in range(4)] == [True, False, True, True]


def test_the_limit_includes_the_states_of_other_keys(folder: Folder) -> None:
    folder.open("other").save("document", TOKENS, DATA, never)
    age(folder.files()[0], 100)
    folder.open(max_bytes=len(DATA) + 1000).save("document", TOKENS, DATA, never)
    assert loaded(folder.open("other")) is None
    assert len(folder.files()) == 1


def test_a_state_above_the_limit_is_not_saved(folder: Folder) -> None:
    assert not folder.open(max_bytes=len(DATA)).save("document", TOKENS, DATA, never)
    assert folder.files() == []


def test_unused_states_and_old_temporary_files_are_removed(folder: Folder) -> None:
    states = folder.open()
    states.save("a", [1, *TOKENS], DATA, never)
    left_over = folder.files()[0].with_suffix(".1.new")
    left_over.touch()
    age(left_over, 7200)
    age(folder.files()[1], 40 * 86_400)
    states.save("b", [2, *TOKENS], DATA, never)
    assert len(folder.files()) == 1


@pytest.mark.parametrize("version", [1, 1000])
@pytest.mark.parametrize(("hours", "kept"), [(20, True), (30, False)])
def test_states_of_another_version_are_removed_after_a_day(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, version: int, hours: int, kept: bool
) -> None:
    with monkeypatch.context() as other:
        other.setattr(saved_state, "_VERSION", version)
        folder.open().save("a", TOKENS, DATA, never)
    folder.open("other model").save("a", TOKENS, DATA, never)
    for file in folder.files():
        age(file, hours * 3600)
    folder.open().save("b", TOKENS, DATA, never)
    assert len(folder.files()) == 2 + kept
    assert loaded(folder.open("other model")) is not None, "this version can read the states of another model"


def test_two_versions_that_run_at_the_same_time_keep_their_states(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.open().save("document", TOKENS, DATA, never)
    with monkeypatch.context() as other:
        other.setattr(saved_state, "_VERSION", 1000)
        assert loaded(folder.open()) is None
        folder.open().save("document", TOKENS[:80], DATA, never)
        assert loaded(folder.open(), TOKENS[:80]) is not None
    assert loaded(folder.open()) is not None
    assert folder.log == []


def test_two_states_of_a_slot_are_kept(folder: Folder) -> None:
    states = folder.open()
    for number in range(4):
        for file in folder.files():
            age(file, 10)
        states.save("document", [number, *TOKENS], DATA, never)
    assert [loaded(states, [number, *TOKENS]) is not None for number in range(4)] == [False, False, True, True]


def test_an_interruption_leaves_no_file(folder: Folder) -> None:
    states = folder.open()
    assert not states.save("document", TOKENS, DATA, lambda: True)
    assert folder.files() == []
    assert states.save("document", TOKENS, DATA, never)


def test_an_error_of_the_disk_is_logged_once(folder: Folder) -> None:
    folder.path.write_text("a file, where a folder cannot be made")
    states = folder.open()
    assert not states.save("a", TOKENS, DATA, never)
    assert not states.save("b", TOKENS, DATA, never)
    assert loaded(states) is None
    assert len(folder.log) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of a file")
def test_too_little_space_leaves_no_file(folder: Folder) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert not folder.open().save("document", TOKENS, DATA, never)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folder.files() == []
    assert len(folder.log) == 1


# -- with a model -----------------------------------------------------------------------------------------------------


def open_model(path: Path, budgets: dict[str, int]) -> Llama:
    settings = EngineSettings(context_size=4096, threads=1)
    return Llama(path, settings, partial(longest_sequence, budgets))


@pytest.fixture(scope="module")
def llama() -> Llama:
    return open_model(locate.shipped()[0].path, BUDGETS)


def test_loaded_cells_are_equal_bit_for_bit(llama: Llama, folder: Folder) -> None:
    llama.clear()
    tokens = llama.encode(SOURCE)[:200]
    cache = KvCache(llama, folder.open())
    cache.evaluate("1/document", tokens)
    before = llama.state(_only_sequence(llama)).tobytes()
    assert cache.save(never) is True
    assert cache.save(never) is False, "the state is saved already"
    llama.clear()
    file, length = folder.open().find(tokens)
    assert length == 200
    assert file is not None
    found = folder.open().load(file)
    assert found is not None
    assert llama.set_state(0, found.data)
    assert llama.state(0).tobytes() == before


def _only_sequence(llama: Llama) -> int:
    (sequence,) = (seq for seq in range(llama.n_seq) if llama.end_of(seq))
    return sequence


def test_cells_that_llama_cpp_refuses_are_removed(llama: Llama, folder: Folder) -> None:
    llama.clear()
    tokens = llama.encode(SOURCE)[:200]
    folder.open().save("document", tokens, DATA, never)
    assert KvCache(llama, folder.open()).evaluate("1/document", tokens).evaluated == 200
    assert folder.files() == []


def test_texts_are_identical_with_a_saved_state(llama: Llama, folder: Folder) -> None:
    places = [len(SOURCE) * number // 26 for number in range(1, 25)]
    assert check_identity(llama, folder, BUDGETS, SOURCE, places) < 0.75


def saved_files(llama: Llama, folder: Folder, cursor: Cursor, chunks: list[Chunk] | None = None) -> int:
    """Return how many states are saved after the prompt of `cursor` is evaluated."""
    opened = Opened(llama, BUDGETS, folder.open())
    opened.answer(cursor, chunks, warm=True)
    while opened.model.save(never):
        pass
    return len(folder.files())


@pytest.mark.parametrize("private", ["", "left out by .gitignore"])
def test_a_private_prompt_is_not_saved(llama: Llama, folder: Folder, private: str) -> None:
    half = len(SOURCE) // 2
    cursor = Cursor("/w/models.py", SOURCE[:half], SOURCE[half:], "python", private)
    assert saved_files(llama, folder, cursor) == (0 if private else 1)
    assert saved_files(llama, folder, cursor, CHUNKS) == (0 if private else 2)


def test_a_buffer_without_a_file_is_not_saved(llama: Llama, folder: Folder) -> None:
    assert saved_files(llama, folder, Cursor("", SOURCE[:2000], SOURCE[2000:], "python")) == 0


def test_a_prompt_with_a_secret_is_not_saved(llama: Llama, folder: Folder) -> None:
    text = SOURCE[:2000] + '\nDB_PASSWORD = "kX9#mQ2pLw7z"\n'
    assert saved_files(llama, folder, Cursor("/w/models.py", text, SOURCE[2000:], "python")) == 0


def test_a_saved_prompt_is_not_missing(llama: Llama, folder: Folder) -> None:
    """A decision considers which prompts need no reading, so it has to know of the saved ones."""
    cursor = Cursor("/w/models.py", SOURCE[:2000], SOURCE[2000:], "python")
    empty = Opened(llama, BUDGETS, folder.open()).model.missing(cursor, [None]).tokens[0]
    assert saved_files(llama, folder, cursor) == 1
    assert Opened(llama, BUDGETS, folder.open()).model.missing(cursor, [None]).tokens[0] <= empty - 64


def wait_for_a_state(folder: Path) -> None:
    while not [*folder.rglob("*.kv")]:
        time.sleep(0.1)


async def test_the_next_engine_loads_what_the_last_one_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = EngineSettings(context_size=4096, threads=2, saved_megabytes=64)
    cursor = Cursor("/w/models.py", SOURCE[:2000], SOURCE[2000:], "python")
    readings = []
    for _ in range(2):
        supervisor = Supervisor(locate.shipped()[0].path, settings, budgets={"left": 256, "right": 64})
        readings.append(await (await supervisor.engine()).read("document#plain", cursor))
        await asyncio.to_thread(wait_for_a_state, tmp_path)
        await supervisor.close()
    assert readings[1].evaluated_tokens <= readings[0].evaluated_tokens - 64
    assert readings[1].p_cc == readings[0].p_cc


def check_identity(llama: Llama, folder: Folder, budgets: dict[str, int], source: str, places: Sequence[int]) -> float:
    """Compare probabilities and texts at `places` of `source` with and without a saved state.

    The state is saved four keys before the place. Return the number of tokens that are evaluated with saved states,
    divided by the number without them, for requests whose prompt is not warmed.
    """
    evaluated = {True: 0, False: 0}
    for number, place in enumerate(places):
        before, at = (
            Cursor("/w/models.py", source[:end], source[place + 40 :], "python") for end in (place, place + 4)
        )
        chunks = CHUNKS if number % 2 else None
        opened = Opened(llama, budgets, None)
        expected = opened.answer(at, chunks, warm=number % 4 < 2)
        evaluated[False] += opened.evaluated
        opened = Opened(llama, budgets, folder.open())
        opened.answer(before, chunks, warm=True)
        while opened.model.save(never):
            pass
        opened = Opened(llama, budgets, folder.open())
        assert opened.answer(at, chunks, warm=number % 4 < 2) == expected, f"place {number}"
        evaluated[True] += opened.evaluated
        assert folder.log == []
    return evaluated[True] / evaluated[False]


class Opened:
    """The model with an empty cache, as after a start. `evaluated` counts the tokens of the prompts."""

    def __init__(self, llama: Llama, budgets: dict[str, int], saved: SavedStates | None) -> None:
        llama.clear()
        self.model = CompletionModel(llama, "", budgets, saved)
        self.evaluated = 0
        self._llama = llama

    def answer(
        self, cursor: Cursor, chunks: list[Chunk] | None, *, warm: bool
    ) -> tuple[float | None, float | None, str]:
        """Return P(`<cc>`) and the probability of the first token, both None if there are chunks, and the text."""
        if warm:
            self.model.warm("1/document", cursor, chunks)
        reading = self.model.read("1/document", cursor) if chunks is None else None
        text = ""
        for event in self.model.generate("1/document", cursor, chunks, 6):
            if isinstance(event, PromptStats):
                self.evaluated += event.evaluated_tokens
            elif isinstance(event, Piece):
                text += event.text
        self.evaluated += reading.evaluated_tokens if reading else 0
        return (reading.p_cc, reading.first_p, text) if reading else (None, None, text)
