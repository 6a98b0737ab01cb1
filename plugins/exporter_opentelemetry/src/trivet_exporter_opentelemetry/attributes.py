"""Attributes of spans: Triton's under their names, and Trivet's own."""

from __future__ import annotations

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from trivet.traced import PlainKind, TracedRequest


def fixed_attributes(traced: TracedRequest | PlainKind) -> list[KeyValue]:
    """Those that depend on the model, the batch size and the protocol alone."""
    attributes = [
        text("triton.model_name", traced.model_name),
        number("triton.model_version", traced.model_version),
        number("trivet.batch_size", traced.batch_size),
    ]
    if traced.protocol:
        attributes.append(text("network.protocol.name", traced.protocol.lower()))
    return attributes


def all_attributes(traced: TracedRequest) -> list[KeyValue]:
    """Those of one request."""
    attributes = fixed_attributes(traced)
    if traced.request_id:
        attributes.append(text("triton.request_id", traced.request_id))
    if len(traced.sends) > 1:
        attributes.append(number("trivet.responses", len(traced.sends)))
    if traced.cache_hit:
        attributes.append(KeyValue(key="trivet.cache_hit", value=AnyValue(bool_value=True)))
    if traced.error is not None:
        attributes.append(text("error.type", traced.error.code.value))
    return attributes


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=readable(value)))


def number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))


def readable(value: str) -> str:
    """``value`` as text that can be encoded: what a client sent may hold surrogate escapes."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
