"""An instance, which executes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from trivet.backend import ArrayInstance, ModelContext, OutputValue
from trivet.datatypes import BF16, BYTES, DataType
from trivet.errors import InternalError, InvalidArgumentError
from trivet.signatures import model_dims
from trivet.tensor import Tensor

from trivet_backend_onnx.graphs import CapturedRuns
from trivet_backend_onnx.runtime import bound_outputs, describe, ort
from trivet_backend_onnx.settings import SHRINKAGE, SessionSettings
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.tensors import DeviceResult, Placed, feed_for, feed_on, fetch_for


class OnnxInstance(ArrayInstance):
    """Runs a session on this instance's thread. ``session.run`` releases the GIL while it computes."""

    def __init__(
        self,
        context: ModelContext,
        settings: SessionSettings,
        session: Any,
        signature: Signature,
        device_id: int | None = None,
        *,
        captures: bool = False,
    ) -> None:
        """``device_id`` is that of the session's GPU, where it has one; ``captures``: it captures CUDA graphs.

        Raises :class:`~trivet.errors.InvalidArgumentError` where the model has values that no graph can.
        """
        config = context.config
        self._name = f"'{context.name}' version {context.version}"
        self._session = session
        self._device_id = device_id
        inputs = signature.inputs | signature.optional_inputs
        self._feeds = {name: feed_for(tensor, config.max_batch_size) for name, tensor in inputs.items()}
        # The session's interface wants to hear of each; None says that there is none.
        self._may_be_absent = tuple(name for name, tensor in inputs.items() if tensor.optional)
        shapes = {state.output_name: tuple(state.dims) for state in config.sequence_batching.state}
        shapes |= {output.name: model_dims(output) for output in config.output}
        outputs = {name: signature.outputs[name] for name in shapes}
        self._fetches = {name: fetch_for(outputs[name], shape, config.max_batch_size) for name, shape in shapes.items()}
        # The model's output of each, where some are not its own: a map has values and keys.
        self._sources = {name: tensor.keys_of or name for name, tensor in outputs.items()}
        if all(name == source for name, source in self._sources.items()):
            self._sources = {}
        self._bfloat16 = frozenset(name for name, tensor in outputs.items() if tensor.onnx_type == "tensor(bfloat16)")
        # A run that is to shrink the arena of a device that its session has not fails.
        own = ("cpu:0", f"gpu:{device_id}") if device_id is not None else ("cpu:0",)
        arenas = [device for device in settings.shrunk_arenas if device in own]
        self._options = _run_options(arenas)
        self._captured: CapturedRuns | None = None
        # Outputs that can be left on the GPU, with their datatypes, and those that always are.
        self._leaves: Mapping[str, DataType] = {}
        # Values that are bound cannot be text or contain others; a model that has any gets all of them from the host.
        self._binds = (
            device_id is not None
            and all(tensor.plain and tensor.datatype is not BYTES for tensor in inputs.values())
            and all(tensor.plain for tensor in outputs.values())
        )
        if captures and device_id is not None:
            if not all(t.plain and t.datatype not in (BYTES, BF16) for t in (*inputs.values(), *outputs.values())):
                raise InvalidArgumentError(
                    f"model {self._name} cannot have CUDA graphs, which work on tensors of numbers only: it has text,"
                    " bfloat16, sequences, maps or optionals"
                )
            if own[-1] in arenas:
                raise InvalidArgumentError(
                    f"model {self._name} cannot have {SHRINKAGE} of '{own[-1]}' with CUDA graphs, which go on to use"
                    " the memory that it gives back; leave one of them out"
                )
            self._captured = CapturedRuns(session, "cuda", device_id, partial(_run_options, arenas))
        elif self._binds and device_id is not None:
            self.batch_gpu_memory = context.gpu_memory
            for name, tensor in inputs.items():
                if tensor.dims or config.max_batch_size > 0:
                    self._feeds[name] = feed_on(device_id, self._feeds[name], context.gpu_memory)
            self._leaves = {
                name: tensor.datatype
                for name, tensor in outputs.items()
                if tensor.dims and tensor.datatype is not None and tensor.datatype not in (BYTES, BF16)
            }
        self._stay = frozenset(self._leaves if settings.outputs_on_device else ())
        if device_id is not None and context.pinned_memory and config.optimization.input_pinned_memory.enable:
            self.batch_memory = context.pinned_memory
            self.batch_memory.take(1)  # so that no request has to wait until it is pinned

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue | None]:
        """One ``session.run`` over the whole batch. Results view ONNX Runtime's memory, on the host.

        Those that go into a region on a GPU are left there, or all where the settings say so. An optional one that the
        model had none of is ``None``.

        Raises :class:`~trivet.errors.InvalidArgumentError` for text that is not UTF-8, and
        :class:`~trivet.errors.InternalError` with ONNX Runtime's message where the run fails.
        """
        feeds = self._feeds
        values = {name: feeds[name](tensor) for name, tensor in inputs.items()}
        for name in self._may_be_absent:
            values.setdefault(name, None)
        sources = self._sources
        wanted = list(dict.fromkeys(sources[name] for name in outputs)) if sources else outputs
        try:
            left: Collection[str] = self._stay
            if self.placed and not left:
                left = self._leaves.keys() & self.placed
            if self._captured is not None:
                results = self._captured.run(values, wanted)
            elif left or any(isinstance(value, Placed) for value in values.values()):
                results = self._run_bound(values, wanted, left)
            elif self._bfloat16.isdisjoint(wanted):
                results = self._session.run(wanted, values, self._options)
            else:
                results = self._run_bound(values, wanted)
        except UnicodeDecodeError as error:
            raise InternalError(f"model {self._name} computed text that is not valid UTF-8: {error}") from error
        except Exception as error:
            raise InternalError(f"{describe(error)} (model {self._name})") from error
        if sources:
            found = dict(zip(wanted, results, strict=True))
            results = [found[sources[name]] for name in outputs]
        return {
            name: self._left(name, value) if name in left else self._fetches[name](value)
            for name, value in zip(outputs, results, strict=True)
        }

    def _left(self, name: str, value: Any) -> DeviceResult:
        assert self._device_id is not None, "nothing is left on the host"
        return DeviceResult(self._session, value, self._device_id, self._leaves[name])

    def _run_bound(
        self, values: Mapping[str, Any], outputs: Sequence[str], left: Collection[str] = ()
    ) -> Sequence[Any]:
        """As ``session.run``, but the results are ``OrtValue`` objects: numpy has no bfloat16 for ``run`` to return.

        Those of ``left`` stay on the GPU. So may ``values`` be there.
        """
        binding = self._session.io_binding()
        for name, value in values.items():
            if isinstance(value, Placed):
                binding.bind_input(name, "cuda", self._device_id, value.element_type, value.shape, value.address)
            elif isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in outputs:
            if name in left:
                binding.bind_output(name, "cuda", self._device_id)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding, self._options)
        return bound_outputs(binding)

    def close(self) -> None:
        """Let go of the session; the last instance of a session frees it."""
        self._session = self._captured = None


def _run_options(arenas: Sequence[str]) -> Any:
    options = ort.RunOptions()
    # What goes wrong in a run is raised and answered; logged as well, any client could fill the log.
    options.log_severity_level = 4
    if arenas:
        options.add_run_config_entry(SHRINKAGE, ";".join(arenas))
    return options
