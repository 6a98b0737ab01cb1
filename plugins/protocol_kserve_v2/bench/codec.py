"""Microseconds that the HTTP codec takes for one small request: decode, and encode its response.

    python plugins/protocol_kserve_v2/bench/codec.py

The request is float32 [1, 16], as tritonclient sends it: binary both ways, and JSON both ways. No server, no event
loop.
"""

from __future__ import annotations

import json
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.codec.json_request import decode_request
from trivet_protocol_kserve_v2.codec.json_response import encode_response

ROUNDS, REPEATS = 20_000, 5
VALUES = np.linspace(0, 1, 16, dtype=np.float32)


def model() -> Any:
    """As much of a loaded model as the codec looks at."""
    config = ModelConfig(name="double", max_batch_size=8)
    config.input.add(name="INPUT0", data_type=11, dims=[16])
    config.output.add(name="OUTPUT0", data_type=11, dims=[16])
    return SimpleNamespace(name="double", version=1, spec=ModelSpec.from_config(config), labels={})


def requests() -> dict[str, tuple[bytes, int | None]]:
    """Bodies and header lengths by the name of the case."""
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32"}
    binary = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": 64}}],
        "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}],
    }
    header = json.dumps(binary, separators=(",", ":")).encode()
    plain = {"inputs": [{**tensor, "data": VALUES.tolist()}]}
    return {"binary": (header + VALUES.tobytes(), len(header)), "json": (json.dumps(plain).encode(), None)}


def main() -> None:
    loaded = model()
    output = VALUES.reshape(1, 16) * 2
    for name, (body, json_size) in requests().items():
        decode_us, encode_us = [], []
        for _ in range(REPEATS):
            start = perf_counter()
            for _ in range(ROUNDS):
                request = decode_request(body, json_size, loaded.spec)
            decode_us.append((perf_counter() - start) / ROUNDS * 1e6)
            request.model = loaded
            start = perf_counter()
            for _ in range(ROUNDS):
                encode_response(request, InferenceResponse([Tensor.from_numpy("OUTPUT0", output)]))
            encode_us.append((perf_counter() - start) / ROUNDS * 1e6)
        print(f"{name:8} decode {min(decode_us):6.2f} us   encode {min(encode_us):6.2f} us")


if __name__ == "__main__":
    main()
