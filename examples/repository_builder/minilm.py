"""all-MiniLM-L6-v2 as a torch module: a six-layer BERT encoder, mean pooling and normalization in one graph.

Pooling inside the graph keeps the answer small: 384 numbers a sentence go over the wire, not 384 a token.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, POSITIONS, TOKEN_TYPES = 30522, 512, 2
LAYERS, HEADS, HIDDEN, INTERMEDIATE = 6, 12, 384, 1536
NORM_EPSILON = 1e-12


class Embeddings(nn.Module):
    """Token, position and token-type embeddings, summed and normalized. Attribute names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, HIDDEN)
        self.position_embeddings = nn.Embedding(POSITIONS, HIDDEN)
        self.token_type_embeddings = nn.Embedding(TOKEN_TYPES, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, eps=NORM_EPSILON)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = self.position_embeddings(torch.arange(input_ids.shape[1]))
        tokens = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(tokens + positions)


class Attention(nn.Module):
    """Multi-head self-attention over the positions that ``mask`` leaves in."""

    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(HIDDEN, HIDDEN) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(HIDDEN, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, NORM_EPSILON)}
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        def heads(name: str) -> Tensor:
            projected: Tensor = self.self[name](hidden)
            return projected.view(*projected.shape[:2], HEADS, HIDDEN // HEADS).transpose(1, 2)

        scores = heads("query") @ heads("key").transpose(-1, -2) / math.sqrt(HIDDEN // HEADS)
        context = torch.softmax(scores + mask, dim=-1) @ heads("value")
        merged = context.transpose(1, 2).reshape(hidden.shape)
        return self.output["LayerNorm"](self.output["dense"](merged) + hidden)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, INTERMEDIATE)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(INTERMEDIATE, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, NORM_EPSILON)}
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self.attention(hidden, mask)
        wide = functional.gelu(self.intermediate["dense"](hidden))
        return self.output["LayerNorm"](self.output["dense"](wide) + hidden)


class MiniLM(nn.Module):
    """INT64 ``input_ids``, ``attention_mask``, ``token_type_ids`` [B, S] to unit-length FP32 embeddings [B, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        kept = attention_mask.to(torch.float32)
        mask = (1.0 - kept)[:, None, None, :] * torch.finfo(torch.float32).min
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder["layer"].children():
            hidden = layer(hidden, mask)
        weights = kept.unsqueeze(-1)
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: an 8-byte header length, a JSON header, and the raw little-endian data."""
    dtypes = {"F32": np.float32, "I64": np.int64}
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    return tensors


def state_dict(weights: Path) -> dict[str, Tensor]:
    """What of the checkpoint :class:`MiniLM` loads."""
    # It also holds what sentence embeddings do not use: BERT's pooler, and 0, 1, 2, … as a tensor.
    unused = ("pooler.", "embeddings.position_ids")
    return {name: tensor for name, tensor in read_safetensors(weights).items() if not name.startswith(unused)}


def export(weights: Path, model_file: Path) -> None:
    """Write the ONNX model (output ``sentence_embedding``, free batch and sequence) for the checkpoint ``weights``."""
    model = MiniLM().eval()
    model.load_state_dict(state_dict(weights))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.ones(2, 16, dtype=torch.int64)
    torch.onnx.export(
        model,
        (example, example, torch.zeros_like(example)),
        model_file,
        input_names=names,
        output_names=["sentence_embedding"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names} | {"sentence_embedding": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
