"""Every path and method that is not inference, and paths that are almost one."""

from __future__ import annotations

from pathlib import Path

from .case import Case, Request, get, infer, one, post, tensor

_MODEL = "/v2/models/double"
_NAMES = sorted(path.name for path in (Path(__file__).parents[1] / "models").iterdir())

_SAME = (
    "/",
    "/v2/",
    "/v3",
    "/V2",
    "//v2",
    "/v2/health",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/health/live?x=1",
    "/v2/health/live/",
    "/v2/health/nope",
    "/v2//health/live",
    "/v2/models",
    "/v2/models/",
    "/v2/models//ready",
    "/v2/models/nope",
    "/v2/models/nope/ready",
    "/v2/models/nope/config",
    "/v2/models/nope/stats",
    "/v2/models/nope/versions/1",
    "/v2/models/nope/versions/1/ready",
    "/v2/models/nope/versions/1/stats",
    "/v2/models/a+b",
    "/v2/models/stats/ready",
    "/v2/models/stats/stats",
    "/v2/models/stats/config",
    f"{_MODEL}/",
    f"{_MODEL}/nope",
    f"{_MODEL}/ready",
    f"{_MODEL}?x=1",
    f"{_MODEL}/versions",
    f"{_MODEL}/versions/",
    f"{_MODEL}/versions/0",
    f"{_MODEL}/versions/01",
    f"{_MODEL}/versions/2",
    f"{_MODEL}/versions/2/ready",
    f"{_MODEL}/versions/2/config",
    f"{_MODEL}/versions/2/stats",
    f"{_MODEL}/versions/-1",
    f"{_MODEL}/versions/x",
    f"{_MODEL}/versions/1.0",
    f"{_MODEL}/versions/99999999999999999999",
    f"{_MODEL}/versions/1/trace/setting",
    "/v2/models/versioned",
    "/v2/models/versioned/versions/1",
    "/v2/models/versioned/versions/2",
    "/v2/models/versioned/versions/3",
    "/v2/models/versioned/versions/3/ready",
    "/v2/repository",
    "/v2/repository/index",
    "/v2/repository/mine/index",
    "/v2/repository/models/double/load",
    "/v2/repository/models/double/nope",
    "/v2/systemsharedmemory",
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/r/status",
    "/v2/cudasharedmemory/status",
    "/v2/cudasharedmemory/region/r/status",
    "/v2/systemsharedmemory/unregister",
    "/v2/cudasharedmemory/region/r/register",
)

_OTHER_METHODS = (
    Request("POST", "/v2", b""),
    Request("DELETE", "/v2"),
    Request("POST", "/v2/health/ready", b""),
    Request("POST", "/v2/models/stats", b""),
    Request("POST", _MODEL, b""),
    Request("DELETE", _MODEL),
    Request("PATCH", _MODEL, b""),
    Request("POST", f"{_MODEL}/ready", b""),
    Request("POST", f"{_MODEL}/config", b""),
    Request("POST", f"{_MODEL}/stats", b""),
    Request("POST", f"{_MODEL}/versions/1", b""),
    Request("GET", infer("double")),
    Request("PUT", infer("double"), b"{}"),
    Request("OPTIONS", infer("double")),
    Request("OPTIONS", "/v2"),
    Request("PUT", "/v2/logging", b""),
    Request("PUT", "/v2/trace/setting", b""),
    Request("PUT", f"{_MODEL}/trace/setting", b""),
    Request("POST", "/v2/systemsharedmemory/status", b""),
    Request("GET", f"{_MODEL}/generate"),
    Request("GET", f"{_MODEL}/generate_stream"),
)

_INFER_ELSEWHERE = (
    "/v2/models/nope/infer",
    "/v2/models/decoupled/infer",
    f"{_MODEL}/versions/7/infer",
    f"{_MODEL}/versions/x/infer",
    f"{_MODEL}/versions/99999999999999999999/infer",
    f"{_MODEL}/infer/",
)

_COUNTED = frozenset(
    {"last_inference", "inference_count", "execution_count", "count", "ns", "batch_stats", "response_stats"}
)

CASES: list[Case] = [
    *(one(f"get {path}", get(path)) for path in _SAME),
    *(one(f"{request.method} {request.path}", request) for request in _OTHER_METHODS),
    *(one(f"post {path}", post(path, {"inputs": []})) for path in _INFER_ELSEWHERE),
    one(
        "infer on a version",
        post("/v2/models/versioned/versions/1/infer", {"inputs": [tensor("IN", "INT32", [1], [1])]}),
    ),
    one("infer on the latest version", post(infer("versioned"), {"inputs": [tensor("IN", "INT32", [1], [1])]})),
    one("infer on a version that is not served", post("/v2/models/versioned/versions/2/infer", {"inputs": []})),
    *(one(f"metadata of {name}", get(f"/v2/models/{name}")) for name in _NAMES),
    *(one(f"configuration of {name}", get(f"/v2/models/{name}/config")) for name in _NAMES),
    *(Case(f"statistics of {name}", (get(f"/v2/models/{name}/stats"),), ignoring=_COUNTED) for name in _NAMES),
    Case("statistics of a version", (get("/v2/models/versioned/versions/3/stats"),), ignoring=_COUNTED),
    Case("statistics of all", (get("/v2/models/stats"),), ignoring=_COUNTED),
    one("server metadata", get("/v2"), "identity"),
    one("an encoded blank", get("/v2/models/a%20b"), "percent"),
    one("an encoded slash", get("/v2/models/a%2Fb"), "percent"),
    one("an encoded letter", get("/v2/models/dou%62le/ready"), "percent"),
    one("head", Request("HEAD", "/v2/health/live"), "head"),
]
