"""An instance: one network, run on its own thread over whole batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trivet.backend import ArrayInstance, ModelContext, OutputValue
from trivet.signatures import model_dims, scheduler_inputs
from trivet.tensor import Tensor

from trivet_backend_tf.network import Network
from trivet_backend_tf.runtime import execute_failure
from trivet_backend_tf.values import feed_for, fetch_for


class TensorFlowInstance(ArrayInstance):
    """Runs a network. The session releases the GIL while it computes."""

    def __init__(self, context: ModelContext, network: Network) -> None:
        """The network's session is the model's, which closes it. Raises what TensorFlow raises."""
        config = context.config
        self._name = f"'{context.name}' version {context.version}"
        self._network = network
        signature = network.signature
        batches = config.max_batch_size > 0
        self._feeds = {name: feed_for(info) for name, info in signature.inputs.items()}
        self._fetches = {
            message.name: fetch_for(signature.outputs[message.name], None if batches else model_dims(message))
            for message in config.output
        }
        for state in config.sequence_batching.state:
            shape = None if batches else tuple(state.dims)
            self._fetches.setdefault(state.output_name, fetch_for(signature.outputs[state.output_name], shape))
        inputs = [message.name for message in config.input if not message.optional]
        network.compile((*inputs, *scheduler_inputs(config)), self._fetches)

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        """One run of the session over the whole batch, for these outputs only. Results view TensorFlow's memory.

        Raises :class:`~trivet.errors.InternalError` or, out of memory, :class:`~trivet.errors.ResourceExhaustedError`
        with TensorFlow's message where the run fails.
        """
        feeds, fetches = self._feeds, self._fetches
        values = {name: feeds[name](tensor) for name, tensor in inputs.items()}
        try:
            results = self._network.run(values, outputs)
        except Exception as error:
            raise execute_failure(error, self._name) from error
        return {name: fetches[name](value) for name, value in results.items()}

    def close(self) -> None:
        """Let go of the network."""
        self._network = None  # type: ignore[assignment]
