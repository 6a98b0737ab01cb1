"""Everything but inference. Each case leaves the models as it found them."""

from __future__ import annotations

import json
from typing import Any

from trivet_protocol_kserve_v2.proto.health_pb2 import HealthCheckRequest

from .case import Call, Case, infer, one, request, tensor, unary

_HEALTH = "/grpc.health.v1.Health/Check"
_INFER = infer(request("double", tensor("INPUT0", "FP32", [1, 16], range(16))))
_SMALLER = {
    "backend": "python",
    "max_batch_size": 4,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [16]}],
}


def _load(name: str = "double", **parameters: Any) -> Call:
    return unary("RepositoryModelLoad", model_name=name, parameters=parameters)


def _unload(name: str = "double", **parameters: Any) -> Call:
    return unary("RepositoryModelUnload", model_name=name, parameters=parameters)


_MODELS = (("double", ""), ("double", "1"), ("double", "9"), ("double", "x"), ("nope", ""), ("nope", "1"), ("", ""))

CASES: list[Case] = [
    one("live", unary("ServerLive")),
    one("ready", unary("ServerReady")),
    one("server metadata", unary("ServerMetadata"), "identity"),
    *(
        one(f"{method} of {name!r} {version!r}", unary(method, name=name, version=version))
        for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
        for name, version in _MODELS
        if not (method == "ModelStatistics" and not name)
    ),
    *(
        one(f"{method} of {name}", unary(method, name=name))
        for method in ("ModelMetadata", "ModelConfig")
        for name in ("classes", "decoupled", "failing", "parameters", "shapes", "strings", "types", "versioned")
    ),
    *(
        one(f"{method} of version {version} of several", unary(method, name="versioned", version=version))
        for method in ("ModelMetadata", "ModelConfig", "ModelReady", "ModelStatistics")
        for version in ("1", "2", "3")
    ),
    one("statistics of several versions", unary("ModelStatistics", name="versioned")),
    *(
        one(f"health of {service!r}", Call(_HEALTH, (HealthCheckRequest(service=service).SerializeToString(),)))
        for service in ("", "inference.GRPCInferenceService", "double", "nope")
    ),
    one("index", unary("RepositoryIndex")),
    one("index of what is ready", unary("RepositoryIndex", ready=True)),
    one("index of a repository", unary("RepositoryIndex", repository_name="x")),
    one("load", _load()),
    one("load what is not there", _load("nope")),
    one("load nothing", _load("")),
    one("load from a repository", unary("RepositoryModelLoad", repository_name="x", model_name="double")),
    one("load with a parameter that does not exist", _load(foo={"string_param": "x"})),
    one("load with a configuration that is a number", _load(config={"int64_param": 1})),
    one("load with a configuration that is bytes", _load(config={"bytes_param": b"{}"})),
    one("load with a configuration that is no JSON", _load(config={"string_param": "{"}), "load reasons"),
    one("load with a file that is a text", _load(**{"file:1/model.py": {"string_param": "x"}})),
    one("load with a file and no configuration", _load(**{"file:1/model.py": {"bytes_param": b"x"}})),
    one("unload what is not there", _unload("nope")),
    one("unload nothing", _unload("")),
    one("unload from a repository", unary("RepositoryModelUnload", repository_name="x", model_name="double")),
    one("unload with dependents that are a number", _unload(unload_dependents={"int64_param": 1})),
    Case("unload and load", (_unload(), unary("ModelReady", name="double"), _load(), _INFER)),
    Case("unload with a parameter that does not exist", (_unload(foo={"string_param": "x"}), _load())),
    Case(
        "what is not loaded cannot be asked",
        (
            _unload(unload_dependents={"bool_param": True}),
            _INFER,
            *(unary(method, name="double") for method in ("ModelMetadata", "ModelConfig", "ModelStatistics")),
            unary("ModelConfig", name="double", version="1"),
            _load(),
        ),
    ),
    Case(
        "another configuration for a while",
        (
            _load(config={"string_param": json.dumps(_SMALLER)}),
            unary("ModelConfig", name="double"),
            _INFER,
            _unload(),
            _load(),
            unary("ModelConfig", name="double"),
        ),
    ),
    *(
        one(f"log settings: {settings}", unary("LogSettings", settings=settings))
        for settings in (
            {},
            {"log_info": {"bool_param": True}},
            {"log_info": {"uint32_param": 1}},
            {"log_info": {}},
            {"log_verbose_level": {"uint32_param": 2**32 - 1}},
            {"log_verbose_level": {"uint32_param": 0}},
            {"log_verbose_level": {"bool_param": True}},
            {"log_format": {"string_param": "nope"}},
            {"log_format": {"bool_param": True}},
            {"log_format": {"string_param": "default"}},
            {"log_file": {"string_param": "x"}},
            {"log_file": {"bool_param": True}},
            {"nope": {"string_param": "x"}},
        )
    ),
    *(
        one(f"{method}: {payload!r} is no message", Call(method, (payload,)))
        for method in ("ModelInfer", "ModelReady", "RepositoryIndex")
        for payload in (b"\xff\xff\xff", b"\x0a\x50a", b"\x0a\x02\xff\xfe")
    ),
]
