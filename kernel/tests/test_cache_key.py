"""Two requests share a key exactly when a model could not tell them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.cache_key import key_material, model_identity
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceRequest, ParameterValue, RequestedOutput
from trivet.tensor import Tensor, element_count

CONFIG = ModelConfig(name="m")
for output in ("a", "b"):
    CONFIG.output.add(name=output, data_type="TYPE_FP32", dims=[-1])
SPEC = ModelSpec.from_config(CONFIG)

Content = tuple[str, str, tuple[int, ...], tuple[bytes, ...]]
"""Name, datatype, shape and elements of a tensor."""

names = st.sampled_from(["x", "xx", "y", "x', 'y"])
elements = st.sampled_from([b"", b"\0", b"a", b"ab", b"b", b"c", b"bc"])


@st.composite
def contents(draw: st.DrawFn) -> Content:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    count = element_count(shape)
    kind = draw(st.sampled_from(["BYTES", "INT8", "UINT8"]))
    strategy = elements if kind == "BYTES" else st.sampled_from([b"\0", b"\1"])
    return draw(names), kind, shape, tuple(draw(st.lists(strategy, min_size=count, max_size=count)))


parameters = st.dictionaries(
    st.sampled_from(["p", "q"]), st.sampled_from([0, 1, 1.0, True, False, "1", "", 0.0, -0.0]), max_size=2
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[Content], list[str] | None, dict[str, ParameterValue]]:
    return (
        draw(st.lists(contents(), max_size=2, unique_by=lambda content: content[0])),
        draw(st.sampled_from([None, ["a"], ["b"], ["a", "b"], ["b", "a"]])),
        draw(parameters),
    )


def tensor(content: Content) -> Tensor:
    name, kind, shape, items = content
    if kind != "BYTES":
        return Tensor.from_wire(name, datatypes.BY_NAME[kind], shape, b"".join(items))
    array = np.empty(len(items), np.object_)
    array[:] = items
    return Tensor.from_numpy(name, array.reshape(shape))


def key(
    inputs: list[Content], outputs: list[str] | None = None, given: dict[str, ParameterValue] | None = None
) -> bytes:
    request = InferenceRequest(
        "m",
        {content[0]: tensor(content) for content in inputs},
        outputs=None if outputs is None else [RequestedOutput(name) for name in outputs],
        parameters=given or {},
    )
    material = key_material(b"identity", SPEC, request)
    assert material is not None
    return material.digest()


def essence(inputs: list[Content], outputs: list[str] | None, given: dict[str, ParameterValue]) -> object:
    """What decides, written down independently of how the key is made."""
    typed = {name: (type(value), repr(value)) for name, value in given.items()}
    return sorted(inputs), outputs or ["a", "b"], sorted(typed.items(), key=lambda item: item[0])


@given(asked(), asked())
def test_keys_are_equal_exactly_when_requests_are(
    one: tuple[list[Content], list[str] | None, dict[str, ParameterValue]],
    other: tuple[list[Content], list[str] | None, dict[str, ParameterValue]],
) -> None:
    assert (key(*one) == key(*other)) == (essence(*one) == essence(*other))


@given(asked())
def test_the_order_of_inputs_does_not_matter(
    one: tuple[list[Content], list[str] | None, dict[str, ParameterValue]],
) -> None:
    inputs, outputs, given_parameters = one
    assert key(inputs, outputs, given_parameters) == key(inputs[::-1], outputs, given_parameters)


def test_neighbouring_strings_do_not_run_into_each_other() -> None:
    assert key([("x", "BYTES", (2,), (b"ab", b"c"))]) != key([("x", "BYTES", (2,), (b"a", b"bc"))])
    one = [("x", "INT8", (2,), (b"\1", b"\2")), ("y", "INT8", (1,), (b"\3",))]
    other = [("x", "INT8", (1,), (b"\1",)), ("y", "INT8", (2,), (b"\2", b"\3"))]
    assert key(one) != key(other)


def test_shape_and_datatype_count_where_there_are_no_bytes() -> None:
    empty = [key([("x", kind, shape, ())]) for kind in ("INT8", "BYTES") for shape in ((0,), (0, 2), (2, 0))]
    assert len(set(empty)) == 6


def test_bytes_count_where_numbers_are_equal_or_equal_nothing() -> None:
    def of(*bits: int) -> bytes:
        array = np.array(bits, np.uint32).view(np.float32)
        material = key_material(b"", SPEC, InferenceRequest("m", {"x": Tensor.from_numpy("x", array)}))
        assert material is not None
        return material.digest()

    assert len({of(0), of(0x80000000)}) == 2  # 0.0 and -0.0
    assert of(0x7FC00000) == of(0x7FC00000)  # a NaN
    assert of(0x7FC00000) != of(0x7FC00001)  # another NaN


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.int32).reshape(3, 4).T, np.arange(24, dtype=np.int32)[::2]])
def test_memory_layout_does_not_count(array: np.ndarray) -> None:
    laid_out = [
        Tensor.from_numpy("x", array),
        Tensor.from_numpy("x", array.copy()),
        Tensor.from_numpy("x", array.astype(">i4")),
    ]
    materials = [key_material(b"", SPEC, InferenceRequest("m", {"x": one})) for one in laid_out]
    assert len({material.digest() for material in materials if material is not None}) == 1


class OnDevice:
    """A tensor of a CUDA device, as far as DLPack tells."""

    def __dlpack__(self, *, stream: object = None) -> object:
        raise AssertionError("copied to the host")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_a_tensor_on_a_device_stays_there() -> None:
    x = Tensor.from_dlpack("x", OnDevice(), datatypes.FP32, (4,))
    assert key_material(b"", SPEC, InferenceRequest("m", {"x": x})) is None


# --- what a model is


def model(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "1").mkdir(parents=True)
    (folder / "2").mkdir()
    (folder / "1" / "model.bin").write_bytes(weights)
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "config.pbtxt").write_text("# as read")
    return folder


def identity(path: Path, *, version: int = 1, contents: bool = True, **fields: object) -> bytes:
    return model_identity(ModelConfig(name="m", **fields), version, path, contents=contents)  # type: ignore[arg-type]


def test_the_same_model_on_another_server_is_the_same(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other")
    assert identity(one) == identity(other)
    assert identity(one, instance_group=[{"count": 4}]) == identity(other)  # more instances answer the same


def test_weights_labels_version_and_configuration_make_another_model(tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    seen = {identity(path), identity(path, version=2), identity(path, max_batch_size=4)}
    (path / "1" / "model.bin").write_bytes(b"Weights")
    seen.add(identity(path))
    (path / "labels.txt").write_text("cat\ncow\n")
    seen.add(identity(path))
    assert len(seen) == 5


def test_another_version_and_the_text_of_the_configuration_do_not_count(tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    before = identity(path)
    (path / "2" / "model.bin").write_bytes(b"more")
    (path / "config.pbtxt").write_text("# a remark")
    assert identity(path) == before


def test_without_reading_contents_a_touched_file_is_another(tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    before = identity(path, contents=False)
    (path / "1" / "model.bin").write_bytes(b"Weights, more")
    assert identity(path, contents=False) != before
