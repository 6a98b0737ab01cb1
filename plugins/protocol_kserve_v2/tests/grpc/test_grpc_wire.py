"""Cutting fields out of protobuf messages, and appending them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet_protocol_kserve_v2.codec.protobuf_wire import append_field, cut_field, tag, varint
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import ModelInferRequest

RAW = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


@st.composite
def requests(draw: st.DrawFn) -> ModelInferRequest:
    message = ModelInferRequest(model_name=draw(st.text()), id=draw(st.text()))
    for name in draw(st.lists(st.text(), max_size=3)):
        message.inputs.add(name=name, datatype="FP32", shape=draw(st.lists(st.integers(-(2**63), 2**63 - 1))))
    for key in draw(st.lists(st.text(), max_size=2)):
        message.parameters[key].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    message.raw_input_contents.extend(draw(st.lists(st.binary(max_size=300), max_size=4)))
    return message


@given(requests())
def test_what_is_cut_and_what_is_left_are_the_message(message: ModelInferRequest) -> None:
    rest, raw = cut_field(message.SerializeToString(), RAW)

    assert list(map(bytes, raw)) == list(message.raw_input_contents)
    left = ModelInferRequest.FromString(rest)
    assert not left.raw_input_contents
    left.raw_input_contents.extend(message.raw_input_contents)
    assert left == message


@given(requests(), requests())
def test_fields_may_come_in_any_order(first: ModelInferRequest, second: ModelInferRequest) -> None:
    """Two messages one after the other are one message; its raw contents are then not at the end."""
    data = first.SerializeToString() + second.SerializeToString()

    rest, raw = cut_field(data, RAW)

    whole = ModelInferRequest.FromString(data)
    assert list(map(bytes, raw)) == list(whole.raw_input_contents)
    whole.ClearField("raw_input_contents")
    assert ModelInferRequest.FromString(rest) == whole


@given(st.binary(max_size=200))
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    try:
        rest, raw = cut_field(data, RAW)
    except ValueError:
        return
    assert len(rest) + sum(map(len, raw)) <= len(data)


@given(requests(), st.data())
def test_a_message_that_ends_early_is_refused_or_still_one(message: ModelInferRequest, data: st.DataObject) -> None:
    whole = message.SerializeToString()
    part = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        rest, _ = cut_field(part, RAW)
    except ValueError:
        return
    ModelInferRequest.FromString(rest)


def test_the_views_are_into_the_data() -> None:
    data = ModelInferRequest(raw_input_contents=[b"x" * 100]).SerializeToString()

    _, (view,) = cut_field(data, RAW)

    assert view.obj is data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x3a\x05ab", "reaches beyond the end"),
        (b"\x3a", "ends inside a varint"),
        (b"\x08\xff\xff", "ends inside a varint"),
        (b"\x3a" + b"\xff" * 11, "at most ten bytes"),
        (b"\x3b", "unexpected wire type 3"),
        (b"\x09\x00", "reaches beyond the end"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cut_field(data, RAW)


@given(st.integers(0, 2**64 - 1))
def test_varint_is_protobufs(value: int) -> None:
    message = ModelInferRequest()
    message.parameters["p"].uint64_param = value
    assert message.parameters["p"].SerializeToString() == b"\x28" + varint(value)


def test_an_appended_field_is_read_back() -> None:
    parts = [ModelInferRequest(model_name="m").SerializeToString()]
    append_field(parts, tag(RAW), memoryview(b"abcdefgh").cast("I"))
    append_field(parts, tag(RAW), b"")

    message = ModelInferRequest.FromString(b"".join(parts))

    assert message == ModelInferRequest(model_name="m", raw_input_contents=[b"abcdefgh", b""])
