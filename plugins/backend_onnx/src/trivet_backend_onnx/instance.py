"""An instance, which executes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trivet.backend import ArrayInstance, ModelContext, OutputValue
from trivet.datatypes import BF16, BYTES
from trivet.errors import InternalError
from trivet.tensor import Tensor

from trivet_backend_onnx.runtime import describe, ort
from trivet_backend_onnx.settings import SessionSettings
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.tensors import DeviceResult, feed_for, feed_on, fetch_for, is_on_device


class OnnxInstance(ArrayInstance):
    """Runs a session on this instance's thread. ``session.run`` releases the GIL while it computes."""

    def __init__(
        self,
        context: ModelContext,
        settings: SessionSettings,
        session: Any,
        signature: Signature,
        device_id: int | None = None,
    ) -> None:
        """``device_id`` is that of the session's GPU, where it has one."""
        config = context.config
        self._name = f"'{context.name}' version {context.version}"
        self._session = session
        inputs = signature.inputs | signature.optional_inputs
        self._feeds = {name: feed_for(tensor, config.max_batch_size) for name, tensor in inputs.items()}
        # The session's interface wants to hear of each; None says that there is none.
        self._may_be_absent = tuple(name for name, tensor in inputs.items() if tensor.optional)
        # Values that are bound cannot be text or contain others; a model that has any gets all of them from the host.
        self._binds = (
            device_id is not None
            and hasattr(ort.OrtValue, "from_dlpack")  # newer versions have the other direction too
            and all(tensor.plain and tensor.datatype is not BYTES for tensor in inputs.values())
            and all(signature.outputs[output.name].plain for output in config.output)
        )
        self._device_id = device_id
        # Outputs that can be left on the GPU.
        self._leaves: frozenset[str] = frozenset()
        if device_id is not None and self._binds:
            self._leaves = frozenset(
                name
                for name, tensor in signature.outputs.items()
                if tensor.dims and tensor.datatype not in (BYTES, BF16)
            )
            for name, tensor in inputs.items():
                if tensor.dims or config.max_batch_size > 0:
                    self._feeds[name] = feed_on(device_id, self._feeds[name])
        shapes = {state.output_name: state.dims for state in config.sequence_batching.state}
        for output in config.output:
            shapes[output.name] = output.reshape.shape if output.HasField("reshape") else output.dims
        self._fetches = {
            name: fetch_for(signature.outputs[name], shape, config.max_batch_size) for name, shape in shapes.items()
        }
        # The model's output of each, where some are not its own: a map has values and keys.
        self._sources = {name: signature.outputs[name].keys_of or name for name in shapes}
        if all(name == source for name, source in self._sources.items()):
            self._sources = {}
        self._bfloat16 = frozenset(
            name for name in self._fetches if signature.outputs[name].onnx_type == "tensor(bfloat16)"
        )
        if device_id is not None and config.optimization.input_pinned_memory.enable:
            self.batch_memory = context.pinned_memory
        self._options = ort.RunOptions()
        # What goes wrong in a run is raised and answered; logged as well, any client could fill the log.
        self._options.log_severity_level = 4
        for key, value in settings.run_config_entries:
            self._options.add_run_config_entry(key, value)

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue | None]:
        """One ``session.run`` over the whole batch. Results view ONNX Runtime's memory, on the host.

        Those that go into a region are left on the GPU. An optional one that the model had none of is ``None``.

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
            left = self._leaves.intersection(self.placed) if self.placed else self.placed
            if left or (self._binds and any(map(is_on_device, values.values()))):
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
            name: DeviceResult(value) if name in left else self._fetches[name](value)
            for name, value in zip(outputs, results, strict=True)
        }

    def _run_bound(
        self, values: Mapping[str, Any], outputs: Sequence[str], left: Collection[str] = ()
    ) -> Sequence[Any]:
        """As ``session.run``, but the results are ``OrtValue`` objects: numpy has no bfloat16 for ``run`` to return.

        Those of ``left`` stay on the GPU. So may ``values`` be there, and still be being computed.
        """
        binding = self._session.io_binding()
        for name, value in values.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        if any(map(is_on_device, values.values())):
            binding.synchronize_inputs()
        for name in outputs:
            if name in left:
                binding.bind_output(name, "cuda", self._device_id)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding, self._options)
        results: Sequence[Any] = binding.get_outputs()
        return results

    def close(self) -> None:
        """Let go of the session; the last instance of a session frees it."""
        self._session = None
