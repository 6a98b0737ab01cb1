"""ONNX models on a server, over sockets: those that cannot be loaded beside one that is served, and very large ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import TensorProto, TypeProto, helper
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS, COLUMNS = 600_000, 1024
"""2.3 GB of float32, more than a file of ONNX can have in itself."""

Tensors = dict[str, tuple[int, list[int | str]]]


def model(
    nodes: list[onnx.NodeProto],
    inputs: Tensors,
    outputs: Tensors,
    weights: list[TensorProto] | None = None,
    opset: int = 18,
) -> bytes:
    def described(tensors: Tensors) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *tensor) for name, tensor in tensors.items()]

    graph = helper.make_graph(nodes, "graph", described(inputs), described(outputs), weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def doubling(opset: int = 18) -> bytes:
    float_4: Tensors = {"x": (FLOAT, ["n", 4])}
    return model([helper.make_node("Add", ["x", "x"], ["y"])], float_4, {"y": float_4["x"]}, opset=opset)


def external(name: str, shape: tuple[int, ...], offset: int = 0) -> TensorProto:
    """Weights in the file ``weights.bin``, beside the model's."""
    weights = TensorProto(name=name, data_type=FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "weights.bin", "offset": offset, "length": 4 * int(np.prod(shape))}.items():
        weights.external_data.add(key=key, value=str(value))
    return weights


def write(folder: Path, data: bytes | None, config: str = "", name: str = "model.onnx") -> None:
    folder.mkdir(parents=True)
    if data is not None:
        (folder / name).write_bytes(data)
    (folder.parent / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}')


def picking(rows: int, columns: int) -> bytes:
    """Rows ``y`` of the weights by their numbers ``x``."""
    gather = helper.make_node("Gather", ["w", "x"], ["y"])
    weights = [external("w", (rows, columns))]
    return model([gather], {"x": (INT64, ["n"])}, {"y": (FLOAT, ["n", columns])}, weights)


def too_large(folder: Path) -> None:
    """A terabyte of weights, in a file of holes, that ONNX Runtime wants to pack for its kernels."""
    size = 2**19
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    shape: Tensors = {"x": (FLOAT, ["n", size])}
    write(folder, model([product], shape, {"y": shape["x"]}, [external("w", (size, size))]))
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(4 * size * size)


class Neighbour:
    """Asks the model ``stays`` until it is left, from a thread of its own."""

    def __init__(self, server: RunningServer) -> None:
        self._url = server.http_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answered = 0
        self.failure: Exception | None = None

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        x = triton_http.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.ones((1, 4), np.float32))
        with triton_http.InferenceServerClient(self._url) as client:
            while not self._stop.is_set() or not self.answered:
                try:
                    assert client.infer("stays", [x]).as_numpy("y").tolist() == [[2.0] * 4]
                except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
                    self.failure = error
                    return
                self.answered += 1


@contextmanager
def beside_a_neighbour(repository: Path) -> Iterator[RunningServer]:
    """A server whose model ``stays`` answers all the while."""
    write(repository / "stays" / "1", doubling())
    with running_server(repository, model_control_mode="explicit", load_model=["stays"]) as server:
        with Neighbour(server) as neighbour:
            yield server
        assert neighbour.failure is None
        assert neighbour.answered


SIGNATURE = """
    input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }
    output { name: "z" data_type: TYPE_FP32 dims: [ -1, 4 ] }
"""


@pytest.mark.parametrize(
    ("write_bad", "message"),
    [
        pytest.param(lambda folder: write(folder, None), "unable to find '.*model.onnx'", id="missing file"),
        pytest.param(
            lambda folder: write(folder, doubling(opset=99)), "this is onnxruntime .*: upgrade it", id="wrong version"
        ),
        pytest.param(
            lambda folder: write(folder, doubling()[:-20]), "unable to load model 'bad'.*damaged", id="corrupt file"
        ),
        pytest.param(
            lambda folder: write(folder, doubling(), SIGNATURE), "unexpected inference output 'z'", id="wrong signature"
        ),
        pytest.param(
            lambda folder: write(folder, picking(2, 2)), "unable to load .*weights.bin", id="missing external data"
        ),
        pytest.param(too_large, "unable to load model 'bad'.*too little memory", id="out of memory"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why_and_costs_no_other(
    write_bad: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_bad(tmp_path / "bad" / "1")
    with beside_a_neighbour(tmp_path) as server, triton_http.InferenceServerClient(server.http_url) as client:
        with pytest.raises(InferenceServerException, match=f"(?s)load failed for model 'bad'.*{message}"):
            client.load_model("bad")
        states = {entry["name"]: entry for entry in client.get_model_repository_index()}
        assert states["bad"]["state"] == "UNAVAILABLE"
        assert states["stays"]["state"] == "READY"
        assert client.is_server_live()


def test_a_run_that_needs_too_much_memory_costs_its_request_only(tmp_path: Path) -> None:
    expand = helper.make_node("Expand", ["x", "shape"], ["y"])
    growing = model([expand], {"x": (FLOAT, [1]), "shape": (INT64, [1])}, {"y": (FLOAT, ["n"])})
    write(tmp_path / "growing" / "1", growing)
    with beside_a_neighbour(tmp_path) as server, triton_http.InferenceServerClient(server.http_url) as client:
        client.load_model("growing")
        with pytest.raises(InferenceServerException, match=r"Failed to allocate memory.*\(model 'growing' version 1\)"):
            client.infer("growing", inputs(triton_http, x=np.ones(1, np.float32), shape=np.array([2**42])))
        answer = client.infer("growing", inputs(triton_http, x=np.ones(1, np.float32), shape=np.array([3])))
        assert answer.as_numpy("y").tolist() == [1, 1, 1]


def inputs(client: Any, **arrays: np.ndarray[Any, Any]) -> list[Any]:
    """Tensors of ``tritonclient.http`` or ``tritonclient.grpc``."""
    kinds = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
    made = []
    for name, array in arrays.items():
        tensor = client.InferInput(name, list(array.shape), kinds[array.dtype.name])
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def test_more_than_two_gigabytes_with_external_data_in_the_models_folder(tmp_path: Path) -> None:
    """``model.onnx`` is a folder, as Triton has it for such models. The weights are holes but for the last row."""
    folder = tmp_path / "large" / "1" / "model.onnx"
    write(folder, picking(ROWS, COLUMNS))
    (folder.parent / "config.pbtxt").unlink()
    last = np.arange(COLUMNS, dtype=np.float32)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(4 * ROWS * COLUMNS)
        file.seek(4 * (ROWS - 1) * COLUMNS)
        file.write(last.tobytes())
    with running_server(tmp_path) as server, triton_grpc.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer("large", inputs(triton_grpc, x=np.array([[ROWS - 1], [0]])))
        np.testing.assert_array_equal(answer.as_numpy("y"), [last, np.zeros(COLUMNS)])


def test_external_data_can_come_with_a_load(tmp_path: Path) -> None:
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    files = {"file:1/model.onnx": picking(4, 2), "file:1/weights.bin": weights.tobytes()}
    with (
        running_server(tmp_path, model_control_mode="explicit") as server,
        triton_http.InferenceServerClient(server.http_url) as client,
    ):
        client.load_model("given", config=json.dumps({"backend": "onnxruntime"}), files=files)
        answer = client.infer("given", inputs(triton_http, x=np.array([[3], [1]])))
        assert answer.as_numpy("y").tolist() == weights[[3, 1]].tolist()


def scoring_and_sometimes() -> bytes:
    """``scores`` are a map for each row, as of a classifier; ``maybe`` is ``x`` where it is ``wanted``, or nothing."""
    float_2 = helper.make_tensor_type_proto(FLOAT, ["n", 2])
    maybe = helper.make_optional_type_proto(float_2)
    key_to_score = TypeProto.Map(key_type=TensorProto.STRING, value_type=helper.make_tensor_type_proto(FLOAT, []))
    maps = helper.make_sequence_type_proto(TypeProto(map_type=key_to_score))
    graph = helper.make_graph(
        [
            helper.make_node("ZipMap", ["x"], ["scores"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"]),
            helper.make_node(
                "If",
                ["wanted"],
                ["maybe"],
                then_branch=helper.make_graph(
                    [helper.make_node("Optional", ["x"], ["some"])], "some", [], [helper.make_value_info("some", maybe)]
                ),
                else_branch=helper.make_graph(
                    [helper.make_node("Optional", [], ["none"], type=float_2)],
                    "none",
                    [],
                    [helper.make_value_info("none", maybe)],
                ),
            ),
        ],
        "graph",
        [helper.make_value_info("x", float_2), helper.make_tensor_value_info("wanted", TensorProto.BOOL, [1])],
        [helper.make_value_info("scores", maps), helper.make_value_info("maybe", maybe)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_maps_and_optionals_over_the_wire(protocol: str, tmp_path: Path) -> None:
    client_module: Any = {"http": triton_http, "grpc": triton_grpc}[protocol]
    folder = tmp_path / "odd" / "1"
    write(folder, scoring_and_sometimes())
    with (
        running_server(tmp_path) as server,
        client_module.InferenceServerClient(server.url(protocol)) as client,
    ):
        x = np.array([[0.25, 0.75]], np.float32)
        with_it = client.infer("odd", inputs(client_module, x=x, wanted=np.array([True])))
        assert with_it.as_numpy("scores").tolist() == x.tolist()
        assert with_it.as_numpy("scores.keys").tolist() == [[b"cat", b"dog"]]
        assert with_it.as_numpy("maybe").tolist() == x.tolist()
        without = client.infer("odd", inputs(client_module, x=x, wanted=np.array([False])))
        assert without.as_numpy("scores").tolist() == x.tolist()
        assert without.as_numpy("maybe") is None
