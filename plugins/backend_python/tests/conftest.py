"""Models written into a temporary repository and run through the backend contract, as the kernel would run them."""

from __future__ import annotations

import logging
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bls_models import SHARED, Repository
from numpy.typing import NDArray
from trivet.backend import ArrayInstance, BackendInstance, InstanceContext, ModelCaller, ModelContext, RequestInstance
from trivet.batching import gather, split
from trivet.config import normalize, read_config, validate
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.tensor import Tensor
from trivet_backend_python.backend import PythonBackend
from trivet_backend_python.plugin import OFFER

FLOAT_CONFIG = """
    backend: "python"
    max_batch_size: 8
    input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [-1] }]
"""


class RunningModel:
    """A loaded model with its instances; requests run on the test's thread."""

    def __init__(self, context: ModelContext, backend: PythonBackend, stack: ExitStack, instances: int) -> None:
        self.context = context
        self.spec = ModelSpec.from_config(context.config)
        model = backend.load(context)
        stack.callback(model.close)
        self.instances: list[BackendInstance] = []
        for index in range(instances):
            instance = model.create_instance(InstanceContext(f"{context.name}_0_{index}", "CPU"))
            stack.callback(instance.close)
            self.instances.append(instance)
        self.close = stack.close

    def request(self, *, wire: bool = True, outputs: Sequence[str] | None = None, **fields: Any) -> InferenceRequest:
        """A request whose inputs are read-only bytes, as from the wire, unless ``wire`` is false."""
        arrays: Mapping[str, NDArray[Any]] = {
            name: fields.pop(name) for name in list(fields) if isinstance(fields[name], np.ndarray)
        }
        inputs = {name: Tensor.from_numpy(name, array) for name, array in arrays.items()}
        if wire:
            inputs = {n: Tensor.from_wire(n, t.datatype, t.shape, bytes(t.wire())) for n, t in inputs.items()}
        requested = None if outputs is None else [RequestedOutput(name) for name in outputs]
        request = InferenceRequest(self.context.name, inputs, outputs=requested, **fields)
        request.batch_size = next(iter(inputs.values())).shape[0] if self.spec.max_batch_size else 1
        request.context = []
        request.responder = _collect
        return request

    def run(self, *requests: InferenceRequest, instance: int = 0) -> list[InferenceResponse]:
        """The first response to each; raises what the instance raises."""
        running = self.instances[instance]
        if isinstance(running, RequestInstance):
            for request, response in zip(requests, running.execute(requests) or (), strict=True):
                if response is not None:
                    _collect(request, response)
            return [request.context[0] for request in requests if request.context]
        assert isinstance(running, ArrayInstance)
        inputs = gather(self.spec, requests, None)
        return split(self.spec, requests, running.execute(inputs, self.spec.output_names))

    def __call__(self, **fields: Any) -> dict[str, NDArray[Any]]:
        """The outputs of one request; raises the error of its response."""
        return arrays_of(self.run(self.request(**fields))[0])


def arrays_of(response: InferenceResponse) -> dict[str, NDArray[Any]]:
    if response.error is not None:
        raise response.error
    return {tensor.name: tensor.numpy() for tensor in response.outputs}


def _collect(request: InferenceRequest, response: InferenceResponse) -> None:
    request.done = response.final
    request.context.append(response)


class Models:
    """Writes models and loads them."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.backend = PythonBackend()
        self._stack = stack
        self._others = set(sys.modules)

    def left(self) -> set[str]:
        """Modules of models' code that are imported now, those of other tests' models left out."""
        return {name for name in sys.modules.keys() - self._others if name.startswith("trivet_model_")}

    def write(
        self, name: str, source: str | None, config: str = FLOAT_CONFIG, files: Mapping[str, str] | None = None
    ) -> Path:
        """``files`` are paths inside the version's folder. Lines of ``source`` may be indented."""
        folder = self.root / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(textwrap.dedent(config))
        everything = dict(files or {})
        if source is not None:
            everything["model.py"] = source
        for path, content in everything.items():
            target = folder / "1" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(content))
        return folder

    def context(self, name: str, *, call: ModelCaller | None = None, **options: str) -> ModelContext:
        folder = self.root / name
        config = read_config(folder, name)
        config.name = name
        context = ModelContext(
            name, 1, folder, folder / "1", config, logging.getLogger(f"trivet.model.{name}"), options, call
        )
        self.backend.auto_complete(context)
        normalize(config, backend=OFFER)
        validate(config)
        return context

    def load(
        self,
        name: str,
        *,
        instances: int = 1,
        call: ModelCaller | None = None,
        options: Mapping[str, str] | None = None,
    ) -> RunningModel:
        context = self.context(name, call=call, **(options or {}))
        return RunningModel(context, self.backend, self._stack.enter_context(ExitStack()), instances)

    def run(self, name: str, source: str, config: str = FLOAT_CONFIG, **options: Any) -> RunningModel:
        """Write and load."""
        self.write(name, source, config, options.pop("files", None))
        return self.load(name, **options)

    def execute(self, body: str, config: str = FLOAT_CONFIG, **options: Any) -> RunningModel:
        """A model named ``m`` whose ``execute`` has this body, of any indentation."""
        lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
        source = (
            "import numpy as np\nimport triton_python_backend_utils as pb_utils\n\n"
            f"class TritonPythonModel:\n    def execute(self, requests):\n{lines}\n"
        )
        return self.run("m", source, config, **options)


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Models]:
    with ExitStack() as stack:
        yield Models(tmp_path, stack)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """An empty one, for models that share :data:`bls_models.SHARED` with the test."""
    SHARED.clear()
    SHARED.update(cancelled=threading.Event(), sent_enough=threading.Event(), sent=[])
    yield Repository(tmp_path)
    SHARED.clear()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
def row() -> NDArray[np.float32]:
    return np.array([[1, 2]], dtype=np.float32)
