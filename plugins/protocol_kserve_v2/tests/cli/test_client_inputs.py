"""Files become the tensors that a model's description asks for, or a message that says what does not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from trivet import datatypes
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.cli.exchange import InputDescription, ModelDescription, to_bf16
from trivet_protocol_kserve_v2.cli.inputs import ImageOptions, read_inputs


def model(*inputs: InputDescription, batched: bool = False) -> ModelDescription:
    return ModelDescription("m", "", batched, {one.name: one for one in inputs}, ["y"])


def read(
    description: ModelDescription, *files: str | Path, texts: tuple[str, ...] = (), images: ImageOptions | None = None
) -> list[Tensor]:
    return read_inputs(description, [str(file) for file in files], texts, images or ImageOptions())


def numbers(*shape: int, name: str = "x", datatype: str = "FP32", optional: bool = False) -> InputDescription:
    return InputDescription(name, datatypes.BY_NAME[datatype], shape, optional=optional)


TEXT = InputDescription("t", datatypes.BYTES, (1,))


def written(path: Path, value: Any) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(value))
    elif path.suffix == ".npy":
        np.save(path, value)
    else:
        path.write_bytes(value)
    return path


@pytest.mark.parametrize(
    ("value", "shape", "batched", "expected"),
    [
        ([1, 2, 3], (3,), False, (3,)),
        ([1, 2, 3], (3,), True, (1, 3)),
        ([[1, 2, 3], [4, 5, 6]], (3,), True, (2, 3)),
        ([1, 2, 3, 4, 5, 6], (3,), True, (2, 3)),
        ([1, 2, 3, 4], (2, 2), False, (2, 2)),
        ([[1, 2]], (-1, 2), False, (1, 2)),
        (7, (), False, ()),
        (7, (1,), False, (1,)),
        (7, (), True, (1,)),
    ],
)
def test_numbers_get_the_inputs_shape(
    tmp_path: Path, value: Any, shape: tuple[int, ...], batched: bool, expected: tuple[int, ...]
) -> None:
    (tensor,) = read(model(numbers(*shape), batched=batched), written(tmp_path / "v.json", value))
    assert tensor.shape == expected
    assert tensor.numpy().dtype == np.float32
    assert tensor.numpy().reshape(-1).tolist() == np.array(value).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1, 2], r"shape \[2\] does not fit input 'x', which takes \[3\] and a batch dimension in front"),
        ([[1, 2], [3]], "not all of one length"),
        (["a", "b", "c"], "the file has something else"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, value: Any, problem: str) -> None:
    with pytest.raises(click.UsageError, match=problem):
        read(model(numbers(3), batched=True), written(tmp_path / "v.json", value))


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT32", "UINT64", "BOOL"])
def test_values_that_would_change_are_refused(tmp_path: Path, datatype: str) -> None:
    file = written(tmp_path / "v.json", [1, 300.5])
    with pytest.raises(click.UsageError, match=r"do not fit into|the file has float64"):
        read(model(numbers(2, datatype=datatype)), file)


def test_npy_is_taken_in_its_own_shape_and_cast_where_that_keeps_values(tmp_path: Path) -> None:
    file = written(tmp_path / "v.npy", np.arange(6, dtype=np.int64).reshape(2, 3))
    (tensor,) = read(model(numbers(3, datatype="INT8"), batched=True), file)
    assert tensor.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensor.numpy().dtype == np.int8


def test_pickles_in_npy_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(click.UsageError, match="allow_pickle"):
        read(model(numbers(1)), tmp_path / "v.npy")


def test_several_inputs_by_name(tmp_path: Path) -> None:
    description = model(numbers(2), TEXT)
    mapping = written(tmp_path / "v.json", {"t": ["héllo"], "x": [1, 2]})
    first, second = read(description, mapping)
    assert (first.name, second.name) == ("x", "t")
    assert second.numpy().tolist() == ["héllo".encode()]
    with pytest.raises(click.UsageError, match="model 'm' has no input 'z'"):
        read(description, written(tmp_path / "w.json", {"z": 1}))


def test_npz_holds_inputs_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", x=np.ones(2), z=np.zeros(1, np.int32))
    first, second = read(model(numbers(2), numbers(1, name="z", datatype="INT32")), tmp_path / "v.npz")
    assert first.numpy().tolist() == [1, 1]
    assert second.numpy().tolist() == [0]


def test_a_name_is_needed_where_it_is_not_clear(tmp_path: Path) -> None:
    description = model(numbers(2), numbers(2, name="z"))
    file = written(tmp_path / "v.json", [1, 2])
    with pytest.raises(click.UsageError, match=r"which input is .* Write NAME="):
        read(description, file)
    assert [tensor.name for tensor in read(description, f"z={file}", f"x={file}")] == ["x", "z"]
    assert len(read(description, f"z={file}", file)) == 2  # only x is left


def test_a_missing_input_is_named_and_an_optional_one_is_not_missed(tmp_path: Path) -> None:
    file = written(tmp_path / "v.json", [1, 2])
    with pytest.raises(click.UsageError, match="model 'm' needs input 'z'"):
        read(model(numbers(2), numbers(2, name="z")), f"x={file}")
    assert len(read(model(numbers(2), numbers(2, name="z", optional=True)), f"x={file}")) == 1


def test_text_is_an_element_per_line_or_per_option(tmp_path: Path) -> None:
    description = model(TEXT, batched=True)
    file = written(tmp_path / "v.txt", b"one\ntwo\n")
    (tensor,) = read(description, file)
    assert tensor.numpy().tolist() == [[b"one"], [b"two"]]
    (tensor,) = read(description, texts=("one", "t=two"))
    assert tensor.numpy().tolist() == [[b"one"], [b"two"]]


def test_standard_input_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = io.BytesIO(b"piped\n")

    monkeypatch.setattr("sys.stdin", Standard())
    (tensor,) = read(model(TEXT), "-")
    assert tensor.numpy().tolist() == [b"piped"]


def test_any_file_is_one_element_of_a_bytes_input(tmp_path: Path) -> None:
    for name in ("v.wav", "v.png"):
        (tensor,) = read(model(TEXT, batched=True), written(tmp_path / name, b"\x00\xff"))
        assert tensor.numpy().tolist() == [[b"\x00\xff"]]
    with pytest.raises(click.UsageError, match=r"give them as \.json, \.npy or an image"):
        read(model(numbers(2)), tmp_path / "v.wav")


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"no\.json: No such file"):
        read(model(numbers(2)), tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(click.UsageError, match="not JSON"):
        read(model(numbers(2)), tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("empty.npy", b"", "not an array"),
        ("noise.npy", b"noise", "not an array"),
        ("cut.npz", b"PK\x03\x04", "not an array"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(click.UsageError, match=message):
        read(model(numbers(2)), tmp_path / name)


def test_one_input_given_twice_is_a_batch_only_where_the_model_has_one(tmp_path: Path) -> None:
    file = written(tmp_path / "v.json", [1, 2])
    (tensor,) = read(model(numbers(2), batched=True), file, file)
    assert tensor.shape == (2, 2)
    with pytest.raises(click.UsageError, match="no batch dimension"):
        read(model(numbers(2)), file, file)


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=True)))
def test_bf16_is_the_nearest_value(array: NDArray[np.float32]) -> None:
    back = (to_bf16(array).astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(array) & np.isfinite(back)
    # 8 bits of precision: half a unit in the last place is 2**-9, and denormals have an absolute bound.
    error = np.abs(back[finite].astype(np.float64) - array[finite].astype(np.float64))
    bound = np.maximum(np.abs(array[finite].astype(np.float64)) * 2.0**-8, 2.0**-133)
    assert (error <= bound).all()
    assert (np.isnan(back) == np.isnan(array)).all()
    assert (np.signbit(back) == np.signbit(array))[~np.isnan(array)].all()


PICTURE = InputDescription("image", datatypes.FP32, (3, 4, 6), "FORMAT_NCHW")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """8 x 4 pixels (width x height): red on the left, white on the right."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = (255, 0, 0)
    pixels[:, 4:] = 255
    image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.mark.parametrize(
    ("scaling", "red"),
    [
        (None, (1.0, 0.0, 0.0)),
        ("none", (255.0, 0.0, 0.0)),
        ("inception", (1.0, -1.0, -1.0)),
        ("imagenet", ((1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225)),
    ],
)
def test_images_are_resized_laid_out_and_scaled(
    picture: Path, scaling: str | None, red: tuple[float, float, float]
) -> None:
    (tensor,) = read(model(PICTURE, batched=True), picture, images=ImageOptions(scaling))
    assert tensor.shape == (1, 3, 4, 6)
    assert tensor.numpy().dtype == np.float32
    np.testing.assert_allclose(tensor.numpy()[0, :, 0, 0], red, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "format", "expected"),
    [
        ((4, 6, 3), "FORMAT_NHWC", (4, 6, 3)),
        ((4, 6, 3), "FORMAT_NONE", (4, 6, 3)),
        ((3, 4, 6), "FORMAT_NONE", (3, 4, 6)),
        ((1, 4, 6), "FORMAT_NCHW", (1, 4, 6)),
        ((3, -1, -1), "FORMAT_NONE", (3, 4, 8)),
        ((3, 2, -1), "FORMAT_NONE", (3, 2, 4)),
        ((3, -1, 16), "FORMAT_NONE", (3, 8, 16)),
    ],
)
def test_layouts(picture: Path, shape: tuple[int, ...], format: str, expected: tuple[int, ...]) -> None:
    (tensor,) = read(model(InputDescription("i", datatypes.UINT8, shape, format)), picture)
    assert tensor.shape == expected


def test_crop_keeps_the_proportions(picture: Path) -> None:
    square = InputDescription("i", datatypes.UINT8, (4, 4, 3), "FORMAT_NHWC")
    (tensor,) = read(model(square), picture, images=ImageOptions(crop=True))
    # The middle of the picture is where red meets white.
    assert tensor.numpy()[0, :, 1].tolist() == [0, 0, 255, 255]


def test_what_is_no_picture_is_said(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="is not an image of 1, 3 or 4 channels"):
        read(model(InputDescription("i", datatypes.FP32, (16,))), picture)
    with pytest.raises(click.UsageError, match="not an image that Pillow can read"):
        read(model(PICTURE), written(tmp_path / "x.png", b"nothing"))
    with pytest.raises(click.UsageError, match="gives fractions"):
        read(model(InputDescription("i", datatypes.UINT8, (3, 4, 6))), picture, images=ImageOptions("unit"))
