"""Call llama.cpp: a model, its vocabulary, its context.

The module calls llama.cpp's C API through ctypes (`native.py`), because the packages' own Python classes hide what this
project needs: the logits at one position, several sequences in one KV cache, and an abort inside a running evaluation.
The server never imports this module, so a crash in native code ends only the worker process. Evaluation in torch
imports it in its own process, for the tokenizer.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policy.engine.settings import EngineSettings, FlashAttention, default_threads
from policy.engine.worker import capi, native
from policy.engine.worker.aborting import AbortFlag
from policy.engine.worker.batching import BLOCKS, Row, block_of
from policy.engine.worker.metadata import named_tokens
from policy.errors import EngineFailed, ModelInvalid, ModelMissing, OutOfMemory
from policy.models.card import metadata_of
from policy.prompting.healing import PieceIndex
from policy.prompting.prompt import Role, Vocabulary
from policy.tracing import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outcome = Literal["ok", "full", "aborted"]

MIN_SEQUENCES = 2  # enough for the two branches of one document
MAX_SEQUENCES = 16
_GRAIN = 256  # cells; llama.cpp rounds the cells of a sequence up to a multiple of this

_GGML_TYPES = {
    "f32": capi.GGML_TYPE_F32,
    "f16": capi.GGML_TYPE_F16,
    "q4_0": capi.GGML_TYPE_Q4_0,
    "q8_0": capi.GGML_TYPE_Q8_0,
}
_FLASH = {
    "auto": capi.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "off": capi.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "on": capi.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}
# Two tokens have different names in the paper and in the released Repoformer tokenizers. Our models use the paper's
# names.
_DECISION_TOKENS: dict[Role, tuple[str, ...]] = {"cc": ("<cc>", "<cfc_info>"), "eof": ("<eof>", "<end_rc>")}
_STARCODER_VOCABULARY = 49_152
_STARCODER_DECISION: dict[Role, int] = {"cc": 49_152, "eof": 49_153}


class Llama:
    """A loaded model with one context, in which every sequence has its own cells.

    If sequences shared cells, the cells of other documents would be between those of a prompt, and attention would add
    its terms in another order, with other rounding. The logits would then depend on the rest of the cache, and differ
    by up to 1 (measured with a 4-bit model, AVX2). Also, attention would spend time on the cells of other sequences.

    `longest` returns, from the model's metadata, how many tokens a sequence has to hold. Without `longest`, there is
    one sequence unless `settings.sequences` says otherwise.

    Not thread-safe, except for `abort`, which another thread can call while `decode` runs.

    Raises `ModelMissing` or `ModelInvalid` if the file cannot be used, `OutOfMemory` if there is no memory for the
    model or its context, and `EngineFailed` if llama.cpp cannot make a context with these settings.
    """

    # The number of tokens of a truth that are evaluated together. It is low because the logits of each of these tokens
    # are stored, and a token has as many logits as the vocabulary has tokens.
    scored_at_once = 32

    def __init__(
        self, path: Path, settings: EngineSettings, longest: Callable[[dict[str, str]], int] | None = None
    ) -> None:
        if not path.is_file():
            raise ModelMissing(f"There is no model at {path}. Run `repoformer-lsp model list` for the installed models")
        self._native = _started(settings.library)
        self._keep_alive: list[Any] = []
        self._context: Any = None
        _errors.clear()
        self._model = self._native.llama_model_load_from_file(str(path).encode(), self._model_params(settings))
        if not self._model:
            if _no_memory():
                raise OutOfMemory(
                    f"Not enough memory for {path.name}. Choose a smaller model, or decrease `gpuLayers` "
                    f"({_last_error()})"
                )
            raise ModelInvalid(f"llama.cpp cannot load {path}: {_last_error() or 'the file may be damaged'}")
        self.vocab: Any = self._native.llama_model_get_vocab(self._model)
        self.n_vocab: int = self._native.llama_vocab_n_tokens(self.vocab)
        self.metadata = {**self._read_metadata(), **metadata_of(path)}
        self._abort_flag = AbortFlag()
        self._context = self._native.llama_init_from_model(self._model, self._context_params(settings, longest))
        if not self._context:
            self.close()
            reason = _last_error() or "it gave no reason"
            if _no_memory():
                raise OutOfMemory(
                    f"Not enough memory for a context of {settings.context_size} tokens. Decrease `contextSize` "
                    f"or choose a smaller model ({reason})"
                )
            raise EngineFailed(f"llama.cpp rejects these settings: {reason}")
        self._native.llama_set_abort_callback(
            self._context,
            ctypes.cast(_atoi(), ctypes.c_void_p),
            self._abort_flag.address,
        )
        self._memory: Any = self._native.llama_get_memory(self._context)
        self.n_ctx: int = self._native.llama_n_ctx(self._context)
        self.n_ctx_seq: int = self._native.llama_n_ctx_seq(self._context)  # the maximum number of cells of one sequence
        self.n_batch: int = self._native.llama_n_batch(self._context)
        self.n_ubatch: int = self._native.llama_n_ubatch(self._context)
        self.n_seq: int = self._native.llama_n_seq_max(self._context)
        self._batch = self._native.llama_batch_init(self.n_batch, 0, 1)
        self._views: dict[int, NDArray[np.float32]] = {}  # views of logits by their addresses, of which there are few
        self.busy = 0.0  # total seconds inside `llama_decode`
        self._took: dict[int, float] = {}  # the seconds of the last evaluation, by its number of tokens

    def close(self) -> None:
        """Free everything. The object is unusable afterwards."""
        if self._context:
            self._native.llama_batch_free(self._batch)
            self._native.llama_free(self._context)
            self._context = None
        if self._model:
            self._native.llama_model_free(self._model)
            self._model = None

    def _model_params(self, settings: EngineSettings) -> Any:
        params = self._native.llama_model_default_params()
        params.n_gpu_layers = settings.gpu_layers
        params.main_gpu = settings.main_gpu
        params.use_extra_bufts = settings.extra_buffers
        if settings.tensor_split:
            shares = (ctypes.c_float * self._native.llama_max_devices())(*settings.tensor_split)
            self._keep_alive.append(shares)
            params.tensor_split = shares
        return params

    def _context_params(self, settings: EngineSettings, longest: Callable[[dict[str, str]], int] | None) -> Any:
        params = self._native.llama_context_default_params()
        params.n_ctx = settings.context_size
        params.n_batch = min(settings.context_size, 2048)
        # A multiple of every block, so that llama.cpp does not split a batch within a block.
        params.n_ubatch = -(-settings.micro_batch // BLOCKS[-1]) * BLOCKS[-1]
        if settings.embedding:
            # An encoder needs the whole text, so the text must be in one micro-batch.
            params.n_ubatch = params.n_batch
            params.embeddings = True
            declared = f"{self.metadata.get('general.architecture', '')}.pooling_type" in self.metadata
            params.pooling_type = capi.LLAMA_POOLING_TYPE_UNSPECIFIED if declared else capi.LLAMA_POOLING_TYPE_MEAN
            params.n_seq_max = settings.sequences or MAX_SEQUENCES
            params.kv_unified = True  # sequences share all cells, because a text may need more than an equal share
        else:
            params.kv_unified = False
            params.n_seq_max = settings.sequences or 1
            if longest and not settings.sequences:
                wanted = -(-longest(self.metadata) // _GRAIN) * _GRAIN
                params.n_seq_max = min(MAX_SEQUENCES, max(MIN_SEQUENCES, settings.context_size // wanted))
                share = settings.context_size // params.n_seq_max // _GRAIN * _GRAIN
                params.n_ctx = params.n_seq_max * max(share, _GRAIN)
        params.n_threads = params.n_threads_batch = settings.threads or default_threads()
        params.type_k = params.type_v = _GGML_TYPES[settings.kv_cache_type]
        params.flash_attn_type = _FLASH[self._flash_attention(settings)]
        params.no_perf = True
        return params

    def _flash_attention(self, settings: EngineSettings) -> FlashAttention:
        """Return the setting for llama.cpp. "auto" means only on a GPU, or if a quantized KV cache requires it.

        On a CPU, flash attention is slower for prompts as short as ours (at 512 tokens: 152 instead of 191 tokens/s).
        Its kernels also depend on the size of a batch, so that the logits of a prompt would depend on how many of its
        tokens are cached.
        """
        if settings.flash_attention != "auto" or settings.kv_cache_type in {"q8_0", "q4_0"}:
            return "on" if settings.flash_attention == "auto" else settings.flash_attention
        return "auto" if settings.gpu_layers and self._native.llama_supports_gpu_offload() else "off"

    # -- vocabulary -----------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`, without BOS. Names of special tokens in `text` are treated as ordinary text."""
        return self._tokenize(text, special=False)

    def encode_whole(self, text: str) -> list[int]:
        """Return the tokens of `text`, with the tokens that the model requires at the beginning and end of a text."""
        return self._tokenize(text, special=False, ends=True)

    def _tokenize(self, text: str, *, special: bool, ends: bool = False) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        with span("tokenize"):
            count = self._native.llama_tokenize(self.vocab, data, len(data), buffer, room, ends, special)
        if count < 0:  # with byte fallback, there can be more tokens than bytes
            buffer = (ctypes.c_int32 * -count)()
            count = self._native.llama_tokenize(self.vocab, data, len(data), buffer, -count, ends, special)
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, which are empty for control tokens.

        A character may be split over several tokens.
        """
        buffer = ctypes.create_string_buffer(256)
        count = self._native.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self._native.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def pieces(self) -> list[bytes]:
        """Return `piece(token)` for every token id, in the order of the ids."""
        return [self.piece(token) for token in range(self.n_vocab)]

    @cached_property
    def index(self) -> PieceIndex:
        """The tokens by their bytes."""
        return PieceIndex(self.pieces())

    @property
    def end(self) -> int:
        """The token that ends a text: `<|endoftext|>` if the model has it, else the one that its metadata names."""
        named = self.special("<|endoftext|>")
        return named if named is not None else int(self._native.llama_vocab_eos(self.vocab))

    def special(self, name: str) -> int | None:
        """Return the special token called `name`, or None if this vocabulary has none."""
        tokens = self._tokenize(name, special=True)
        return tokens[0] if len(tokens) == 1 and not self.piece(tokens[0]) else None

    def ends_text(self, token: int) -> bool:
        """Return whether `token` ends a text."""
        return bool(self._native.llama_vocab_is_eog(self.vocab, token))

    def vocabulary(self) -> Vocabulary:
        """Return the token ids of those prompt markers that this model has."""
        ids: dict[Role, int] = {}
        if self._native.llama_vocab_get_add_bos(self.vocab):
            ids["bos"] = self._native.llama_vocab_bos(self.vocab)
        declared: dict[Role, int] = {
            "prefix": self._native.llama_vocab_fim_pre(self.vocab),
            "suffix": self._native.llama_vocab_fim_suf(self.vocab),
            "middle": self._native.llama_vocab_fim_mid(self.vocab),
            "repo": self._native.llama_vocab_fim_rep(self.vocab),
            "file_sep": self._native.llama_vocab_fim_sep(self.vocab),
        }
        ids.update({role: token for role, token in declared.items() if token != capi.LLAMA_TOKEN_NULL})
        for role, names in _DECISION_TOKENS.items():
            for name in names:
                if (token := self.special(name)) is not None:
                    ids[role] = token
        # A checkpoint may have been converted without the names of the two decision tokens. Their ids are then the
        # first two after StarCoder's vocabulary.
        if "repoformer" in self.name.lower() and "prefix" in ids:
            for role, token in _STARCODER_DECISION.items():
                if self.n_vocab >= _STARCODER_VOCABULARY + len(_STARCODER_DECISION):
                    ids.setdefault(role, token)
        return Vocabulary(ids | named_tokens(self.metadata, self.n_vocab))

    @property
    def name(self) -> str:
        """The name of the model in its metadata."""
        return self.metadata.get("general.name", "unnamed model")

    def _read_metadata(self) -> dict[str, str]:
        """Return the entries of the model file, except those of the tokenizer, which only llama.cpp needs."""
        buffer = ctypes.create_string_buffer(4096)
        result: dict[str, str] = {}
        for index in range(self._native.llama_model_meta_count(self._model)):
            if self._native.llama_model_meta_key_by_index(self._model, index, buffer, len(buffer)) < 0:
                continue
            key = buffer.value.decode("utf-8", "replace")
            if key.startswith("tokenizer."):
                continue
            if self._native.llama_model_meta_val_str_by_index(self._model, index, buffer, len(buffer)) >= 0:
                result[key] = buffer.value.decode("utf-8", "replace")
        return result

    # -- evaluation -----------------------------------------------------------------------------------------------

    def decode(self, rows: Sequence[Row]) -> Outcome:
        """Evaluate `rows`, at most `n_batch` of them.

        Return "ok"; "full" if there were too few free cells, in which case nothing was evaluated; or "aborted", in
        which case finished micro-batches stay in the cache (see `end_of`). Raises `EngineFailed` on any other error.
        """
        if self._abort_flag.wanted:
            return "aborted"
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.token[i] = row.token
            batch.pos[i] = row.pos
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row.seq
            batch.logits[i] = row.logits
        # A single token is a generated one, which no later request needs, so its evaluation is always aborted.
        expected = self._took.get(len(rows)) if len(rows) > 1 else None
        started = time.perf_counter()
        with self._abort_flag.evaluating(expected), span("read" if len(rows) > 1 else "write"):
            code = self._native.llama_decode(self._context, batch)
        spent = time.perf_counter() - started
        self.busy += spent
        if code == 0:
            self._took[len(rows)] = spent
            return "ok"
        if code == 1:
            return "full"
        if code == 2:
            return "aborted"
        raise EngineFailed(f"llama.cpp cannot evaluate {len(rows)} tokens (code {code}): {_last_error()}")

    def logits(self, row: int = -1) -> NDArray[np.float32]:
        """Return the logits after row `row` of the last `decode`, shape (n_vocab,).

        The array is a view, which the next `decode` overwrites. Raises `EngineFailed` if no logits were requested.
        """
        pointer = self._native.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise EngineFailed(f"row {row} of the last evaluation has no logits")
        address = ctypes.addressof(pointer.contents)
        if (view := self._views.get(address)) is None:  # views are kept, because making one takes long
            view = self._views[address] = np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))
        return view

    def embedding(self, seq: int) -> NDArray[np.float32]:
        """Return the vector of the tokens of `seq` in the last `decode`, shape (dimensions,).

        The array is a view, which the next `decode` overwrites.
        """
        pointer = self._native.llama_get_embeddings_seq(self._context, seq)
        if not pointer:
            raise EngineFailed("the model returned no vector for the text; it is not an embedding model")
        return np.ctypeslib.as_array(pointer, shape=(self._native.llama_model_n_embd(self._model),))

    def clear(self) -> None:
        """Remove all tokens from the cache."""
        if self._memory:  # an encoder has no KV cache
            self._native.llama_memory_clear(self._memory, False)

    @cached_property
    def block(self) -> int:
        """The block of this model (`policy.engine.worker.batching`). It is measured, so the cache must be empty."""
        return block_of(self) if self.truncates else 1

    @property
    def state_key(self) -> str:
        """A text that identifies everything on which the cells of a prompt depend, except the model file."""
        info = self._native.llama_print_system_info()  # includes the instruction sets of the CPU
        library = self._native.candidate.path
        status = library.stat()
        parts = (library, status.st_size, status.st_mtime_ns, self._native.version, self._native.build, info)
        kernels = sorted(item for item in os.environ.items() if item[0].startswith("GGML_"))
        return repr((*parts, kernels, self.block, self.n_ctx, self.n_ctx_seq, self.n_seq, self.n_batch, self.n_ubatch))

    @property
    def gpu_offload(self) -> bool:
        """Whether the library can run layers on a GPU."""
        return bool(self._native.llama_supports_gpu_offload())

    @property
    def longest_text(self) -> int:
        """The maximum number of tokens of one text: the limits of the model's training and of this context apply."""
        return min(self.n_batch, self.n_ctx, int(self._native.llama_model_n_ctx_train(self._model)))

    def abort(self, wanted: bool = True) -> None:
        """Stop a running `decode`, unless it is about to end. If `wanted` is False, allow evaluations."""
        self._abort_flag.set(wanted)

    # -- the KV cache ---------------------------------------------------------------------------------------------

    def end_of(self, seq: int) -> int:
        """Return the number of positions in sequence `seq`."""
        return int(self._native.llama_memory_seq_pos_max(self._memory, seq)) + 1

    def truncate(self, seq: int, length: int) -> bool:
        """Keep only the first `length` positions of `seq`.

        Return False, and change nothing, if the model cannot remove part of a sequence, as recurrent models cannot.
        """
        return bool(self._native.llama_memory_seq_rm(self._memory, seq, length, -1))

    def copy(self, source: int, target: int, length: int) -> int:
        """Copy the first `length` positions of `source` to the empty sequence `target`.

        Return the new length of `target`. llama.cpp can only copy the whole sequence, so the rest is then removed. If
        the model cannot remove part of a sequence, `target` stays empty and the result is 0.
        """
        self._native.llama_memory_seq_cp(self._memory, source, target, 0, -1)
        if self.truncate(target, length):
            return length
        self.truncate(target, 0)
        return 0

    @property
    def truncates(self) -> bool:
        """Whether the model can remove part of a sequence. Recurrent and hybrid models cannot."""
        recurrent = self._native.llama_model_is_recurrent(self._model)
        return not recurrent and not self._native.llama_model_is_hybrid(self._model)

    def state(self, seq: int) -> memoryview:
        """Return the cells of `seq` in llama.cpp's format. Raises `EngineFailed` if llama.cpp cannot write them."""
        data = np.empty(self._native.llama_state_seq_get_size(self._context, seq), np.uint8)
        written = self._native.llama_state_seq_get_data(self._context, data.ctypes.data, data.nbytes, seq)
        if not written:
            raise EngineFailed(f"llama.cpp cannot save the sequence {seq}: {_last_error()}")
        return data.data[:written]

    def set_state(self, seq: int, data: memoryview) -> bool:
        """Replace the cells of `seq` by those that `state` returned. Return False, and leave `seq` empty, on an error.

        `data` must be from a context with the same model and settings.
        """
        array = np.frombuffer(data, np.uint8)
        if self._native.llama_state_seq_set_data(self._context, array.ctypes.data, array.nbytes, seq) == array.nbytes:
            return True
        self.truncate(seq, 0)
        return False


def build_info(library: str = "") -> dict[str, Any]:
    """Return the path and the capabilities of the llama.cpp library. `library` is the setting `llamaLibrary`.

    Raises `EngineFailed` if no library can be loaded.
    """
    loaded = native.load(library)
    info = loaded.llama_print_system_info()
    return {
        "path": str(loaded.candidate.path),
        "origin": loaded.candidate.origin,
        "version": loaded.version,
        "build": loaded.build,
        "skipped": loaded.skipped,
        "gpu_offload": bool(loaded.llama_supports_gpu_offload()),
        "mmap": bool(loaded.llama_supports_mmap()),
        "system": info.decode("utf-8", "replace").strip() if info else "",
    }


def _started(library: str) -> native.Native:
    """Return the library after loading it and setting its log callback."""
    loaded = native.load(library)
    loaded.llama_log_set(_log_callback, None)
    loaded.llama_backend_init()
    return loaded


def _atoi() -> Any:
    libc = ctypes.CDLL("ucrtbase") if sys.platform == "win32" else ctypes.CDLL(None)
    return libc.atoi


_errors: list[str] = []
# Parts of the messages with which the backends (CPU, CUDA and HIP, Vulkan) report too little memory.
_COMPLAINTS = re.compile(r"out of memory|(failed|unable) to allocate|ErrorOutOf\w*Memory", re.IGNORECASE)


@capi.ggml_log_callback  # type: ignore[untyped-decorator]
def _log_callback(level: int, text: bytes, _user_data: Any) -> None:
    """Store llama.cpp's last errors, which our own messages quote. All other log lines are dropped."""
    if level == capi.GGML_LOG_LEVEL_ERROR and (message := text.decode("utf-8", "replace").strip()):
        _errors.append(message)
        del _errors[:-8]


def _last_error() -> str:
    return _errors[-1] if _errors else ""


def _no_memory() -> bool:
    """Return whether one of llama.cpp's last errors reports too little memory."""
    return any(_COMPLAINTS.search(error) for error in _errors)
