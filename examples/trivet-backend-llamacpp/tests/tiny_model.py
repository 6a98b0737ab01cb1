"""A Llama network of 37,000 weights in a GGUF file, made in a moment.

It has all that a large one has, but was never trained: what it answers to a text is nonsense, and always the same. Its
tokens are bytes; it answers in those that are a character each (ASCII), and reads all of them.
"""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, INNER, LAYERS, HEADS, CONTEXT = 32, 64, 2, 4, 4096
END = 256


def write(path: Path, seed: int = 2, template: str = "") -> None:
    """``template`` is for messages, as llama.cpp knows them."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_vocabulary(writer)
    if template:
        writer.add_chat_template(template)
    chance = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.float32]:
        # Larger than before a training, so that the scores of tokens are far apart and attention matters.
        return chance.normal(0, 2 / np.sqrt(shape[-1]), shape).astype(np.float32)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", weights(*shape))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    scores = weights(END + 1, WIDTH)
    scores[: ord(" ")] = scores[ord("~") + 1 : END] = 0
    scores[END] *= 2  # so that many answers end before their longest
    writer.add_tensor("output.weight", scores)
    add("token_embd", END + 1, WIDTH)
    add_norm("output_norm")
    for layer in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            add_norm(f"blk.{layer}.{part}")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate", INNER, WIDTH)
        add(f"blk.{layer}.ffn_up", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """A token for each byte, and one that ends an answer."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + ["</s>"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([gguf.TokenType.BYTE] * 256 + [gguf.TokenType.CONTROL])
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
