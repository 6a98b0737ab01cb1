"""Repository index, load and unload. Each case leaves the models as it found them."""

from __future__ import annotations

import base64
import json
from typing import Any

from .case import Case, get, infer, one, post, tensor

_INDEX = "/v2/repository/index"
_LOAD = "/v2/repository/models/double/load"
_UNLOAD = "/v2/repository/models/double/unload"
_INFER = post(infer("double"), {"inputs": [tensor("INPUT0", "FP32", [1, 16], [1] * 16)]})
_SMALLER = {
    "backend": "python",
    "max_batch_size": 4,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
}
_METADATA = get("/v2/models/double")


def _load(**parameters: Any) -> Any:
    return post(_LOAD, {"parameters": parameters})


_OK = (
    post(_LOAD),
    post(_LOAD, {}),
    post(_LOAD, []),
    post(_LOAD, {"parameters": {}}),
    post(_LOAD, {"other": 1}),
)

_REFUSED = (
    post(_LOAD, b"{"),
    post(_LOAD, {"parameters": 5}),
    post(_LOAD, {"parameters": None}),
    _load(config=5),
    _load(config=None),
    post("/v2/repository/models/nope/load"),
    post("/v2/repository/models/nope/unload"),
    post("/v2/repository/mine/models/double/load"),
    post("/v2/repository/mine/models/double/unload"),
    _load(**{"file:1/model.py": base64.b64encode(b"x").decode()}),
)

CASES: list[Case] = [
    one("index", post(_INDEX)),
    one("index of a repository", post("/v2/repository/mine/index")),
    *(
        one(f"index {body}", post(_INDEX, body))
        for body in ({"ready": True}, {"ready": False}, {"ready": 1}, [], {}, {"x": 1})
    ),
    one("index, no JSON", post(_INDEX, b"{")),
    *(one(f"load {request.body!r}", request) for request in _OK),
    *(one(f"refused: {request.path} {request.body!r}", request) for request in _REFUSED),
    Case("unload and load", (post(_UNLOAD), get("/v2/models/double/ready"), post(_LOAD), _INFER)),
    Case("unloaded twice", (post(_UNLOAD), post(_UNLOAD), post(_LOAD))),
    Case(
        "what is not loaded cannot be asked",
        (
            post(_UNLOAD, {"parameters": {"unload_dependents": True}}),
            _INFER,
            _METADATA,
            get("/v2/models/double/config"),
            get("/v2/models/double/stats"),
            get("/v2/models/double/versions/1"),
            post(_LOAD),
        ),
    ),
    Case(
        "another configuration for a while",
        (
            _load(config=json.dumps(_SMALLER)),
            get("/v2/models/double/config"),
            _INFER,
            post(_UNLOAD),
            post(_LOAD),
            get("/v2/models/double/config"),
        ),
    ),
    Case(
        "another configuration, then none",
        (
            _load(config=json.dumps(_SMALLER)),
            post(_LOAD),
            get("/v2/models/double/config"),
            post(_UNLOAD),
            post(_LOAD),
        ),
        "load again",
    ),
    one("load, configuration is no JSON", _load(config="{"), "load reasons"),
    one("load, configuration of another kind", _load(config='{"max_batch_size":"x"}'), "load reasons"),
    Case("models serve on after a load that failed", (post("/v2/repository/models/nope/load"), _INFER)),
    one("load, unknown parameter", _load(foo="x"), "load parameter"),
    one("load, no base64", _load(**{"file:1/model.py": "x"}), "load parameter"),
    Case("unload, no JSON", (post(_UNLOAD, b"{"), get("/v2/models/double/ready"), post(_LOAD)), "unload body"),
]
