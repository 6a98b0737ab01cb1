"""The JSON that goes over the wire, as OpenAPI schemas. Source: Open Inference Protocol v2 and Triton's extensions."""

from __future__ import annotations

from typing import Any

from trivet.datatypes import ALL

Schema = dict[str, Any]


def reference(name: str) -> Schema:
    """A use of a schema of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_STRING: Schema = {"type": "string"}
_STRING_OR_NULL: Schema = {"type": ["string", "null"]}
_BOOLEAN: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHAPE = _array(_COUNT)
_DATATYPE: Schema = {"type": "string", "enum": [datatype.name for datatype in ALL]}
_DATA: Schema = {
    "type": "array",
    "description": "Elements in row-major order, flat or nested. FP16 and BF16 have no JSON form: use binary data.",
    "items": {},
}
_ELEMENTS: Schema = {"type": ["string", "number", "boolean", "array"]}
_REGION: dict[str, Schema] = {
    "shared_memory_region": _STRING,
    "shared_memory_offset": _COUNT,
    "shared_memory_byte_size": _COUNT,
}
_BINARY_SIZE = {**_COUNT, "description": "Bytes of this tensor behind the JSON, in the order of the tensors."}
_DURATION = _object(("count", "ns"), count=_COUNT, ns=_COUNT)


def _durations(*names: str) -> Schema:
    return _object(names, **dict.fromkeys(names, reference("Duration")))


SCHEMAS: dict[str, Schema] = {
    "Error": _object(("error",), error=_STRING),
    "ServerMetadata": _object(
        ("name", "version", "extensions"), name=_STRING, version=_STRING, extensions=_array(_STRING)
    ),
    "TensorMetadata": _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype=_DATATYPE,
        shape=_array({"type": "integer", "minimum": -1, "description": "-1 varies"}),
    ),
    "ModelMetadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_STRING,
        versions=_array(_STRING),
        platform=_STRING,
        inputs=_array(reference("TensorMetadata")),
        outputs=_array(reference("TensorMetadata")),
    ),
    "ModelConfig": {
        "type": "object",
        "description": "The message ModelConfig of Triton's model_config.proto in JSON, defaults written out.",
    },
    "Parameters": {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
    "RequestInput": _object(
        ("name", "shape", "datatype"),
        name=_STRING,
        shape=_SHAPE,
        datatype=_DATATYPE,
        parameters=_object(binary_data_size=_BINARY_SIZE, **_REGION),
        data=_DATA,
    ),
    "RequestOutput": _object(
        ("name",),
        name=_STRING,
        parameters=_object(
            binary_data=_BOOLEAN,
            classification={**_COUNT, "description": "Top classes wanted in place of the tensor; 0 for the tensor."},
            **_REGION,
        ),
    ),
    "InferenceRequest": _object(
        ("inputs",),
        id=_STRING,
        parameters={
            "type": "object",
            "properties": {
                "binary_data_output": _BOOLEAN,
                "sequence_id": {"type": ["integer", "string"], "minimum": 0},
                "sequence_start": _BOOLEAN,
                "sequence_end": _BOOLEAN,
                "priority": _COUNT,
                "timeout": {**_COUNT, "description": "Microseconds that the request may wait in the queue."},
            },
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        inputs=_array(reference("RequestInput")),
        outputs=_array(reference("RequestOutput")),
    ),
    "ResponseOutput": _object(
        ("name", "shape", "datatype"),
        name=_STRING,
        shape=_SHAPE,
        datatype=_DATATYPE,
        parameters=_object(binary_data_size=_BINARY_SIZE),
        data=_DATA,
    ),
    "InferenceResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=_STRING,
        model_name=_STRING,
        model_version=_STRING,
        parameters=reference("Parameters"),
        outputs=_array(reference("ResponseOutput")),
    ),
    "GenerateRequest": {
        "type": "object",
        "description": "A key that names an input of the model is that input: an element, or its elements in row-major"
        " order. Any other key is a parameter for the model.",
        "properties": {"id": _STRING, "parameters": {"type": "object", "additionalProperties": _ELEMENTS}},
        "additionalProperties": _ELEMENTS,
    },
    "GenerateResponse": {
        "type": "object",
        "description": "Outputs and parameters of the response by name; an output of one element is that element.",
        "properties": {"id": _STRING, "model_name": _STRING, "model_version": _STRING},
        "required": ["model_name", "model_version"],
        "additionalProperties": _ELEMENTS,
    },
    "Duration": _DURATION,
    "ModelStatistics": _object(
        ("name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"),
        name=_STRING,
        version=_STRING,
        last_inference={**_COUNT, "description": "Milliseconds since the epoch; 0 for never."},
        inference_count=_COUNT,
        execution_count=_COUNT,
        inference_stats=_durations(
            "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"
        ),
        response_stats={
            "type": "object",
            "additionalProperties": _durations(
                "compute_infer", "compute_output", "success", "fail", "empty_response", "cancel"
            ),
        },
        batch_stats=_array(
            _object(
                ("batch_size", "compute_input", "compute_infer", "compute_output"),
                batch_size=_COUNT,
                compute_input=reference("Duration"),
                compute_infer=reference("Duration"),
                compute_output=reference("Duration"),
            )
        ),
        memory_usage=_array({}),
    ),
    "Statistics": _object(("model_stats",), model_stats=_array(reference("ModelStatistics"))),
    "IndexRequest": _object(ready={**_BOOLEAN, "description": "Only models that are ready."}),
    "Index": _array(
        _object(
            ("name",),
            name=_STRING,
            version=_STRING,
            state={"type": "string", "enum": ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]},
            reason=_STRING,
        )
    ),
    "TraceSettings": _object(
        ("trace_level", "trace_rate", "trace_count", "trace_mode"),
        trace_level=_array(_STRING),
        trace_rate=_STRING,
        trace_count=_STRING,
        log_frequency=_STRING,
        trace_file=_STRING,
        trace_mode=_STRING,
    ),
    "NewTraceSettings": _object(
        trace_level={"type": ["array", "null"], "items": _STRING},
        trace_rate=_STRING_OR_NULL,
        trace_count=_STRING_OR_NULL,
        log_frequency=_STRING_OR_NULL,
    ),
    "LoadRequest": _object(
        parameters={
            "type": "object",
            "properties": {"config": {**_STRING, "description": "A model configuration, as JSON text."}},
            "patternProperties": {"^file:": {**_STRING, "contentEncoding": "base64"}},
            "additionalProperties": False,
        }
    ),
    "SystemRegion": _object(("key", "byte_size"), key=_STRING, offset=_COUNT, byte_size=_COUNT),
    "SystemRegions": _array(
        _object(("name", "key", "offset", "byte_size"), name=_STRING, key=_STRING, offset=_COUNT, byte_size=_COUNT)
    ),
    "CudaRegion": _object(
        ("raw_handle", "device_id", "byte_size"),
        raw_handle=_object(("b64",), b64={**_STRING, "contentEncoding": "base64"}),
        device_id={"type": "integer"},
        byte_size=_COUNT,
    ),
    "CudaRegions": _array(
        _object(("name", "device_id", "byte_size"), name=_STRING, device_id={"type": "integer"}, byte_size=_COUNT)
    ),
    "LogSettings": _object(
        log_file={**_STRING, "readOnly": True, "description": "Empty for standard error."},
        log_info=_BOOLEAN,
        log_warning=_BOOLEAN,
        log_error=_BOOLEAN,
        log_verbose_level=_COUNT,
        log_format={"type": "string", "enum": ["default", "ISO8601", "json"]},
    ),
    "UnloadRequest": _object(parameters=_object(unload_dependents=_BOOLEAN)),
}
