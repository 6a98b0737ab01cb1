"""A Llama network in numpy, with the keys and values of many texts kept between steps.

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models"; rotary embeddings, Su et al., with the
two halves of a pair side by side, as llama.cpp lays out the weights; grouped queries, Ainslie et al.
"""

import numpy as np


class Llama:
    """Texts stand in the rows 0 to ``count`` - 1 of the cache, each with a length of its own."""

    def __init__(self, metadata, tensors, rows, context):
        """``rows`` texts of up to ``context`` tokens at a time."""
        width, self._layers = metadata["llama.embedding_length"], metadata["llama.block_count"]
        self._heads, self._kv_heads = (metadata[f"llama.attention.{k}"] for k in ("head_count", "head_count_kv"))
        self._size = width // self._heads
        self._epsilon = metadata["llama.attention.layer_norm_rms_epsilon"]
        self._embedding = tensors["token_embd.weight"]
        self._norm = tensors["output_norm.weight"]
        self._blocks = [_block(tensors, index) for index in range(self._layers)]
        frequencies = metadata["llama.rope.freq_base"] ** (-np.arange(0, self._size, 2) / self._size)
        angles = np.outer(np.arange(context), frequencies)
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        shape = (self._layers, rows, self._kv_heads, context, self._size)
        self._keys, self._values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def begin(self, row, tokens, start):
        """Read ``tokens`` into ``row`` behind the ``start`` that it holds. Returns the scores [V] of the next token."""
        positions = np.arange(start, start + len(tokens))
        visible = np.arange(positions[-1] + 1) <= positions[:, None]
        hidden = self._embedding[tokens]
        for index, block in enumerate(self._blocks):
            query, key, value = self._project(block, hidden, positions)
            keys = self._keys[index, row, :, : positions[-1] + 1]
            values = self._values[index, row, :, : positions[-1] + 1]
            keys[:, start:] = key.transpose(1, 0, 2)
            values[:, start:] = value.transpose(1, 0, 2)
            # [kv heads, tokens, queries of each, size]
            grouped = query.reshape(len(tokens), self._kv_heads, -1, self._size).transpose(1, 2, 0, 3)
            attended = _attend(grouped, keys[:, None], values[:, None], visible)
            hidden = self._finish(block, hidden, attended.transpose(2, 0, 1, 3).reshape(len(tokens), -1))
        return self._scores(hidden[-1:])[0]

    def step(self, tokens, lengths):
        """One more token in each of the first rows, which hold ``lengths``. Returns the scores [N, V] of the next."""
        count, longest = len(tokens), max(lengths) + 1
        positions = np.asarray(lengths)
        visible = (np.arange(longest) <= positions[:, None])[:, None, None, :]
        hidden = self._embedding[tokens]
        for index, block in enumerate(self._blocks):
            query, key, value = self._project(block, hidden, positions)
            self._keys[index, np.arange(count), :, positions] = key
            self._values[index, np.arange(count), :, positions] = value
            grouped = query.reshape(count, self._kv_heads, -1, self._size)
            keys, values = self._keys[index, :count, :, :longest], self._values[index, :count, :, :longest]
            attended = _attend(grouped, keys, values, visible)
            hidden = self._finish(block, hidden, attended.reshape(count, -1))
        return self._scores(hidden)

    def copy(self, source, target, length):
        """Make ``target`` hold the first ``length`` tokens of the row ``source``."""
        for cache in (self._keys, self._values):
            cache[:, target, :, :length] = cache[:, source, :, :length]

    def _project(self, block, hidden, positions):
        """Queries, keys and values [N, heads, size], turned to their positions."""
        normed = _rms_norm(hidden, block["attn_norm"], self._epsilon)
        projected = normed @ block["attn_qkv"]
        heads = projected.reshape(len(hidden), self._heads + 2 * self._kv_heads, self._size)
        turned, value = np.split(heads, [self._heads + self._kv_heads], axis=1)
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        even, odd = turned[..., 0::2], turned[..., 1::2]
        turned = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(turned.shape)
        query, key = np.split(turned, [self._heads], axis=1)
        return query, key, value

    def _finish(self, block, hidden, attended):
        hidden = hidden + attended @ block["attn_output"]
        normed = _rms_norm(hidden, block["ffn_norm"], self._epsilon)
        gate, up = np.split(normed @ block["ffn_gate_up"], 2, axis=1)
        return hidden + (gate / (1 + np.exp(-gate)) * up) @ block["ffn_down"]

    def _scores(self, hidden):
        return _rms_norm(hidden, self._norm, self._epsilon) @ self._embedding.T


def _block(tensors, index):
    """The weights of one layer, input dimension first; those that see the same input joined, for fewer products."""
    names = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    found = {name: tensors[f"blk.{index}.{name}.weight"] for name in names}
    joined = {
        "attn_qkv": np.concatenate([found["attn_q"], found["attn_k"], found["attn_v"]]),
        "attn_output": found["attn_output"],
        "ffn_gate_up": np.concatenate([found["ffn_gate"], found["ffn_up"]]),
        "ffn_down": found["ffn_down"],
    }
    return {"attn_norm": found["attn_norm"], "ffn_norm": found["ffn_norm"], **{k: w.T for k, w in joined.items()}}


def _attend(query, keys, values, visible):
    """What each query [..., N, size] finds at the positions that it may see."""
    scores = query @ keys.swapaxes(-1, -2) / np.sqrt(np.float32(query.shape[-1]))
    scores = np.where(visible, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ values


def _rms_norm(hidden, weight, epsilon):
    return hidden / np.sqrt((hidden * hidden).mean(axis=-1, keepdims=True) + np.float32(epsilon)) * weight
