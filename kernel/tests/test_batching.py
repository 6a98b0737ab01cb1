"""Many requests into one batch, and the results back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from host_arena import HostArena
from host_gpu import HostGpu, InHostMemory, address_of, on_gpu
from trivet import datatypes
from trivet.batching import gather, share_extra_inputs, split
from trivet.config.spec import ModelSpec, TensorSpec
from trivet.errors import InternalError
from trivet.extra_outputs import split_extra_outputs, take_extra_outputs
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.reshaping import reshape_outputs
from trivet.scheduling import Batch
from trivet.tensor import Tensor


def spec(*, max_batch_size: int = 8, dims: tuple[int, ...] = (2,), reshape: tuple[int, ...] | None = None) -> ModelSpec:
    tensors = {"x": TensorSpec("x", datatypes.FP32, dims, reshape=reshape)}
    results = {name: TensorSpec(name, datatypes.FP32, dims, reshape=reshape) for name in ("y", "z")}
    shaped = frozenset({"x"}) if reshape is not None else frozenset()
    return ModelSpec("m", tensors, results, ("y", "z"), max_batch_size, False, shaped, shaped and frozenset(results))


def request(array: np.ndarray, outputs: Sequence[str] | None = None) -> InferenceRequest:
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    made = InferenceRequest("m", {"x": Tensor.from_numpy("x", array)}, outputs=wanted)
    made.batch_size = array.shape[0]
    return made


def test_one_request_is_not_copied() -> None:
    array = np.ones((1, 2), np.float32)
    assert gather(spec(), [request(array)], None)["x"].numpy() is array


def test_requests_are_concatenated_and_each_gets_its_rows_back() -> None:
    requests = [request(np.full((rows, 2), rows, np.float32)) for rows in (1, 3, 2)]
    batch = gather(spec(), requests, None)["x"].numpy()
    assert batch.shape == (6, 2)
    responses = split(spec(), requests, {"y": batch * 2, "z": batch})
    for asked, response in zip(requests, responses, strict=True):
        y, z = response.outputs
        assert (y.numpy() == 2 * asked.inputs["x"].numpy()).all()
        assert np.shares_memory(z.numpy(), batch)


@pytest.mark.parametrize("from_wire", [True, False])
def test_a_large_batch_is_put_together_where_the_instance_wants_it(from_wire: bool) -> None:
    arena = HostArena()
    arrays = [np.full((rows, 1 << 16), rows, np.float32) for rows in (1, 3)]
    requests = [request(array) for array in arrays]
    if from_wire:
        for asked, array in zip(requests, arrays, strict=True):
            asked.inputs = {"x": Tensor.from_wire("x", datatypes.FP32, array.shape, array.tobytes())}
    batch = gather(spec(dims=(1 << 16,)), requests, None, arena)["x"].numpy()
    assert arena.holds(batch)
    assert arena.taken == batch.nbytes
    assert batch.shape == (4, 1 << 16)
    assert (batch == np.concatenate(arrays)).all()


def test_what_is_small_alone_or_text_is_where_it_would_be_otherwise() -> None:
    arena = HostArena()
    large = np.zeros((1, 1 << 20), np.float32)
    assert gather(spec(), [request(large)], None, arena)["x"].numpy() is large
    small = [Tensor.from_wire("x", datatypes.FP32, (1, 2), bytes(8))] * 2
    assert Tensor.concatenated(small, (2, 2), arena).numpy().shape == (2, 2)
    words = [Tensor.from_numpy("x", np.array([b"a" * 1000] * 500, np.object_))] * 2
    assert Tensor.concatenated(words, (1000,), arena).numpy().shape == (1000,)
    assert not arena.taken


def test_a_batch_of_what_is_on_a_gpu_stays_there_with_the_rows_of_its_results() -> None:
    requests = [request(np.full((rows, 2), rows, np.float32)) for rows in (1, 2)]
    for asked in requests:
        asked.inputs = {"x": on_gpu("x", asked.inputs["x"].numpy(), datatypes.FP32)}
    batch = gather(spec(), requests, None, None, HostGpu())["x"]
    assert batch.on_device
    result = 2 * batch.numpy()
    there = InHostMemory(result, datatypes.FP32)
    responses = split(spec(), requests, {"y": there, "z": there}, {"y"})
    (y_1, z_1), (y_2, z_2) = (response.outputs for response in responses)
    assert [address_of(y_1), address_of(y_2)] == [result.ctypes.data, result[1:].ctypes.data]
    assert [y_1.shape, y_2.shape] == [(1, 2), (2, 2)]
    # Whoever reads it elsewhere does so on the event loop, which must not wait for a device.
    assert not z_1.on_device
    assert not z_2.on_device
    assert z_2.numpy().tolist() == [[4, 4], [4, 4]]


@pytest.mark.parametrize("from_wire", [True, False])
def test_requests_of_different_shapes_are_not_joined(from_wire: bool) -> None:
    """Not even where the sizes would fit: three rows of two are as many bytes as rows of two, three and one."""
    requests = [request(np.zeros((1, size), np.float32)) for size in (2, 3, 1)]
    if from_wire:
        for asked in requests:
            x = asked.inputs["x"]
            asked.inputs = {"x": Tensor.from_wire("x", x.datatype, x.shape, bytes(x.wire()))}
    with pytest.raises(InternalError, match=r"different shapes of input 'x' are in one batch: \[\[1, 2\], \[1, 3\]"):
        gather(spec(dims=(-1,)), requests, None)


def test_each_request_gets_the_outputs_it_asked_for_in_its_order() -> None:
    requests = [request(np.zeros((1, 2), np.float32), names) for names in (["z"], ["z", "y"])]
    array = np.zeros((2, 2), np.float32)
    responses = split(spec(), requests, {"y": array, "z": array})
    assert [[output.name for output in response.outputs] for response in responses] == [["z"], ["z", "y"]]


@pytest.mark.parametrize("count", [1, 2])
def test_an_output_that_there_is_none_of_is_left_out(count: int) -> None:
    requests = [request(np.zeros((1, 2), np.float32)) for _ in range(count)]
    responses = split(spec(), requests, {"y": None, "z": np.zeros((count, 2), np.float32)})
    assert [[output.name for output in response.outputs] for response in responses] == [["z"]] * count


def test_scheduler_inputs_join_the_batch_without_touching_the_request() -> None:
    asked = request(np.zeros((1, 2), np.float32))
    batch = gather(spec(), [asked], {"START": Tensor.from_numpy("START", np.ones((1, 1), np.int32))})
    assert set(batch) == {"x", "START"}
    assert set(asked.inputs) == {"x"}


def test_requests_executed_one_by_one_get_their_rows_of_the_schedulers_inputs() -> None:
    requests = [request(np.zeros((rows, 2), np.float32)) for rows in (1, 2)]
    shared = Tensor.from_numpy("START", np.array([[1], [2], [3]], np.int32))
    share_extra_inputs(requests, {"START": shared})
    assert [asked.inputs["START"].numpy().tolist() for asked in requests] == [[[1]], [[2], [3]]]
    assert np.shares_memory(requests[1].inputs["START"].numpy(), shared.numpy())


def test_reshape_is_applied_inward_and_outward() -> None:
    shaped = spec(dims=(-1,), reshape=(1, -1))
    batch = gather(shaped, [request(np.zeros((2, 5), np.float32))], None)["x"]
    assert batch.numpy().shape == (2, 1, 5)
    [response] = split(shaped, [request(np.zeros((2, 5), np.float32))], {"y": batch.numpy(), "z": batch.numpy()})
    assert response.outputs[0].numpy().shape == (2, 5)


@pytest.mark.parametrize("shape", [(2, 5, 2), (10,), (2, 5, 1, 3)])
def test_an_output_that_cannot_be_reshaped_is_named(shape: tuple[int, ...]) -> None:
    shaped = spec(dims=(-1,), reshape=(-1, 1))
    with pytest.raises(InternalError, match="output tensor shape does not match size of output for 'y'"):
        reshape_outputs(shaped, [Tensor.from_numpy("y", np.zeros(shape, np.float32))])


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"y": np.zeros((2, 2), np.float32)}, "did not return output 'z'"),
        (None, "returned a NoneType, expected a mapping of outputs by name"),
        ([np.zeros((2, 2), np.float32)], "returned a list, expected a mapping of outputs by name"),
        ({"y": [0.0], "z": [0.0]}, "returned a list for output '.', expected an array"),
        ({"y": np.zeros((2, 2)), "z": np.zeros((2, 2))}, "datatype FP64, expected FP32"),
        ({"y": np.zeros((1, 2), np.float32), "z": np.zeros((1, 2), np.float32)}, "expected a first dimension of 2"),
    ],
)
def test_wrong_results_are_named(results: Any, message: str) -> None:
    requests = [request(np.zeros((1, 2), np.float32)) for _ in range(2)]
    with pytest.raises(InternalError, match=message):
        split(spec(), requests, results)


STATE = {"state": datatypes.FP32}


def test_what_the_scheduler_wants_is_kept_by_request_in_memory_of_its_own() -> None:
    requests = [request(np.zeros((rows, 2), np.float32)) for rows in (1, 2)]
    state = np.arange(6, dtype=np.float32).reshape(3, 2)
    kept = split_extra_outputs(spec(), requests, {"state": state}, STATE)
    assert [kept[asked]["state"].numpy().tolist() for asked in requests] == [[[0, 1]], [[2, 3], [4, 5]]]
    assert not any(np.shares_memory(rows["state"].numpy(), state) for rows in kept.values())


def test_of_a_batch_of_one_the_scheduler_gets_the_tensor_as_it_is() -> None:
    asked = request(np.zeros((1, 2), np.float32))
    state = np.zeros((1, 7), np.float32)
    assert split_extra_outputs(spec(), [asked], {"state": state}, STATE)[asked]["state"].numpy() is state


@pytest.mark.parametrize(("outputs", "shared"), [(None, True), (["y"], True), (["z"], False)])
def test_what_the_caller_gets_too_the_next_step_does_not_write_into(outputs: list[str] | None, shared: bool) -> None:
    asked = request(np.zeros((1, 2), np.float32), outputs)
    y = np.zeros((1, 2), np.float32)
    kept = split_extra_outputs(spec(), [asked], {"y": y}, {"y": datatypes.FP32})[asked]["y"]
    kept.writable()[:] = 1
    assert y.tolist() == ([[0, 0]] if shared else [[1, 1]])


def test_an_output_that_the_scheduler_wants_must_be_there_with_a_row_for_each_request() -> None:
    requests = [request(np.zeros((1, 2), np.float32)) for _ in range(2)]
    with pytest.raises(InternalError, match=r"expected a first dimension of 2 for the batch"):
        split_extra_outputs(spec(), requests, {"state": np.zeros((1, 2), np.float32)}, STATE)
    with pytest.raises(InternalError, match=r"did not return output 'state'"):
        split_extra_outputs(spec(), requests, {}, STATE)
    with pytest.raises(InternalError, match=r"output 'state' of model 'm' has datatype FP64, expected FP32"):
        split_extra_outputs(spec(), requests, {"state": np.zeros((2, 2))}, STATE)


@pytest.mark.parametrize(("outputs", "left"), [(None, ["y", "z"]), (["z"], ["z"]), (["y"], ["y"])])
def test_what_the_scheduler_wants_leaves_the_response_unless_the_caller_asked_for_it(
    outputs: list[str] | None, left: list[str]
) -> None:
    asked = request(np.zeros((1, 2), np.float32), outputs)
    batch = Batch([asked], extra_outputs={"state": datatypes.FP32, "z": datatypes.FP32})
    array = np.ones((1, 2), np.float32)
    names = ["y", "z", "state"] if outputs is None else [*outputs, "state"]
    response = InferenceResponse([Tensor.from_numpy(name, array) for name in names])
    take_extra_outputs(spec(), batch, asked, response)
    assert [output.name for output in response.outputs] == left
    array += 1
    assert batch.extra_results[asked]["state"].numpy().tolist() == [[1, 1]]
