"""Write small checkpoints with random weights, in the format of Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

SPECIAL = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<cfc_info>", "<end_rc>"]


def save(make: Callable[[int], Any], folder: Path, digits: bool) -> Any:
    """Write the model that `make` returns for a vocabulary size, and its tokenizer, to `folder`. Return the model.

    With `digits`, the tokenizer makes each digit a token of its own.
    """
    size = tokenizer(folder, digits)
    torch.manual_seed(1)
    model = make(size).eval()
    # Biases start as zeros and norms as ones. Without noise, a conversion that swaps two such tensors would pass.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def tokenizer(folder: Path, digits: bool) -> int:
    """Write a byte-level BPE tokenizer with the special tokens of the Repoformer paper. Return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    inner = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splits = [pre_tokenizers.Digits(individual_digits=True), level] if digits else [level]
    inner.pre_tokenizer = pre_tokenizers.Sequence(splits)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False)
    inner.train_from_iterator(["def area(w, h): return 12 * 1234 + 34"] * 9, trainer)
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return int(inner.get_vocab_size())


def bigcode(size: int) -> Any:
    """Return a small model with StarCoder's architecture, which the published Repoformer checkpoints have."""
    return transformers.GPTBigCodeForCausalLM(
        transformers.GPTBigCodeConfig(
            vocab_size=size, n_positions=128, n_embd=64, n_layer=2, n_head=4, attention_softmax_in_fp32=True,
            scale_attention_softmax_in_fp32=True, tie_word_embeddings=True,
        )
    )  # fmt: skip


def llama(size: int) -> Any:
    """Return a small Llama model with grouped-query attention. Its output layer has weights of its own."""
    rope: dict[str, Any] = {"rope_theta": 5_000.0}  # `LlamaConfig` accepts this argument, but its types do not list it
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, **rope,
        )
    )  # fmt: skip


def bert(size: int) -> Any:
    """Return a small BERT model, which turns texts into vectors."""
    return transformers.BertModel(transformers.BertConfig(vocab_size=size, **_ENCODER))


def roberta(size: int) -> Any:
    """Return a small RoBERTa model: the first token has position 2, because the padding's id is 1."""
    return transformers.RobertaModel(transformers.RobertaConfig(vocab_size=size, pad_token_id=1, **_ENCODER))


_ENCODER: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 66, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip


def wordpiece(folder: Path, lowercase: bool = True) -> int:
    """Write a WordPiece tokenizer, which BERT models have. Return its vocabulary size."""
    from tokenizers import BertWordPieceTokenizer, processors

    inner = BertWordPieceTokenizer(lowercase=lowercase)
    inner.train_from_iterator([_LINES] * 9, vocab_size=120, min_frequency=1, show_progress=False)
    first, last = (inner.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    inner.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return int(inner.get_vocab_size())


def roberta_tokenizer(folder: Path) -> int:
    """Write a byte-level BPE tokenizer with `<s>` before a text and `</s>` after it. Return its vocabulary size."""
    from tokenizers import ByteLevelBPETokenizer, processors

    inner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator([_LINES] * 9, vocab_size=300, special_tokens=special, show_progress=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return int(inner.get_vocab_size())


_LINES = "def area(width, height): return width * height + 1234 # Größe É ZONE\nclass Area2_x: ARea => 5;"
