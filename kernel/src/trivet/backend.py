"""The backend contract: what a framework plugin implements to run models.

A :class:`Backend` is made once per server and loads models; a :class:`BackendModel` is what all instances of one
model version share (weights, compiled code); a :class:`BackendInstance` executes. There are two kinds of instance, and
an author picks the shallowest that serves:

* :class:`ArrayInstance` — arrays in, arrays out. The kernel concatenates, splits and times; ``execute`` gets one batch.
* :class:`RequestInstance` — requests in, responses out. ``execute`` gets each request; it returns a response for each,
  or answers through ``request.respond`` any number of times, from any thread, also after ``execute`` returned.

Threads: ``auto_complete``, ``load`` and ``close`` of a model run on a worker thread, never on the event loop. An
instance is created, executed and closed on one thread of its own (CUDA contexts, thread-local sessions).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from trivet.host_policy import HostPolicy
from trivet.tensor import SupportsDLPack, Tensor

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.memory import GpuMemory, PinnedMemory
    from trivet.metrics import MetricRegistry

InstanceKind = Literal["CPU", "GPU", "MODEL"]
OutputValue = Tensor | NDArray[Any] | SupportsDLPack


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What a backend is told about the model version that it loads."""

    name: str
    version: int
    model_path: Path
    """The model's folder (``MODEL/``)."""
    version_path: Path
    """The version's folder (``MODEL/VERSION/``)."""
    config: ModelConfig
    """Complete and validated. Owned by the kernel; do not change it after ``load`` returned."""
    logger: logging.Logger
    backend_options: Mapping[str, str] = field(default_factory=dict)
    """From ``--backend-config=NAME,key=value``."""
    models: ModelCaller | None = None
    """Runs inference on other models of this server; ``None`` while a model is only checked."""
    metrics: MetricRegistry | None = None
    """Where a model's own metrics live; ``None`` while a model is only checked."""
    pinned_memory: PinnedMemory | None = None
    """For copies to and from a GPU, where a memory provider has a pool of it."""
    gpu_memory: GpuMemory | None = None
    """For batches of inputs that are on a GPU, where a memory provider has any."""

    @property
    def default_model_filename(self) -> str:
        """The configuration's ``default_model_filename``, "" where it names none."""
        return str(self.config.default_model_filename)

    @property
    def parameters(self) -> dict[str, str]:
        """The configuration's ``parameters`` as plain strings."""
        return {key: value.string_value for key, value in self.config.parameters.items()}


class ModelCaller(ABC):
    """Lets a model on its own thread use the other models of the server.

    Every method may be called from any thread, those of a model's own event loops included, but what says that it
    blocks raises :class:`~trivet.errors.InternalError` on the server's event loop. Nothing waits for ever: when the
    server stops, what waits gets an :class:`~trivet.errors.UnavailableError`.

    Set ``request.origin`` where it is known for which requests another is made: it is then cancelled with them, and a
    model that would wait for itself is told so.
    """

    @abstractmethod
    def infer(self, request: InferenceRequest, timeout_s: float | None = None) -> InferenceResponse:
        """Run one request and block for its final response. Errors come as ``response.error``, also a refusal.

        Responses before the final one are dropped. Raises :class:`~trivet.errors.DeadlineExceededError` after
        ``timeout_s`` seconds; the request is then cancelled.
        """

    @abstractmethod
    def submit(self, request: InferenceRequest, on_response: Callable[[InferenceResponse], None]) -> None:
        """Run one request and return at once.

        ``on_response`` is called for each response until one is final, a refusal included, and must not block: on the
        event loop, or on this thread once the server has stopped. ``request.throttle`` may hold back a model that
        answers faster than its responses are used.
        """

    @abstractmethod
    def cancel(self, request: InferenceRequest) -> None:
        """Cancel a submitted request and return at once. One that is answered already stays so."""

    @abstractmethod
    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether that model (version) is ready now."""

    @abstractmethod
    def is_decoupled(self, name: str, version: str = "") -> bool:
        """Whether that model (version) is ready and may give any number of responses."""

    @abstractmethod
    def on_loop(self) -> bool:
        """Whether this thread runs the server's event loop, which must not be blocked."""

    @abstractmethod
    def load(
        self,
        name: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        loading: str | None = None,
    ) -> None:
        """Load or reload a model and block until it is ready; arguments as for :meth:`trivet.engine.Engine.load`.

        ``loading`` names the model whose own load waits for this one. Raises :class:`~trivet.errors.TrivetError` for
        what went wrong, and where two loads would wait for each other.
        """

    @abstractmethod
    def unload(self, name: str, *, unload_dependents: bool = False, loading: str | None = None) -> None:
        """Take a model out of service and block until no new request reaches it; see :meth:`load`.

        A model may unload itself while it executes: what it executes is finished first.
        """


@dataclass(frozen=True, slots=True)
class InstanceContext:
    """Which instance is created, and where it is placed."""

    name: str
    """``GROUP_INDEX``, as Triton names instances, e.g. ``minilm_0_1``."""
    kind: InstanceKind
    """``MODEL``: the model itself chooses its devices."""
    device_id: int = 0
    """GPU ordinal; 0 on a CPU."""
    profiles: tuple[str, ...] = ()
    """``instance_group.profile``: optimization profiles by name."""
    host_policy: HostPolicy = HostPolicy()  # noqa: RUF009 - it cannot be changed
    """Already in force on the instance's thread, which passes it on to the threads that it starts."""
    secondary_devices: tuple[tuple[str, int], ...] = ()
    """``instance_group.secondary_devices``: kind (``NVDLA``) and device number of each."""
    passive: bool = False
    """It is never given a request."""


class BackendInstance:
    """One executing copy of a model. See the module for its thread."""

    def close(self) -> None:
        """Free what the instance holds; called once on the instance's thread, after its last ``execute``.

        Every request that it was given has its final response by then, but for those that were cancelled. An exception
        is logged, and the instance is gone all the same.
        """


class ArrayInstance(BackendInstance, ABC):
    """Executes a batch of tensors at once."""

    placed: Collection[str] = ()
    """Outputs that are copied into the callers' memory on a GPU when ``execute`` returns: leave these on the device, if
    they are on one; others should be on the host. Set before each ``execute``."""
    batch_memory: PinnedMemory | None = None
    """Host memory in which inputs of several requests are put together; ``None`` for ordinary memory. An instance sets
    it if it copies inputs to a GPU, and has finished copying when ``execute`` returns."""
    batch_gpu_memory: GpuMemory | None = None
    """The same for inputs that are all on a GPU; ``None`` to have them put together on the host. An instance sets it if
    it reads inputs where they are, and has finished reading when ``execute`` returns."""

    @abstractmethod
    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue | None]:
        """Compute ``outputs`` (names; every output that any request of the batch wants) from ``inputs``.

        With ``max_batch_size`` > 0 the first dimension of each input is the batch, requests one after the other, and
        each output must have it too, except where the configuration makes them ragged, scattered or shape tensors.
        Beside the configuration's inputs come the targets of ``batch_input`` and what the scheduler adds (sequence
        controls); optional inputs that no request gave are absent. ``BYTES`` tensors give object arrays. Inputs may be
        others' memory too: take :meth:`~trivet.tensor.Tensor.writable` of one to write into it. A result may be a numpy
        array, a :class:`~trivet.tensor.Tensor`, or any DLPack object; ``None`` says that there is no such output this
        time, and leaves it out of the responses. An exception fails the whole batch,
        and nothing else: :class:`~trivet.errors.TrivetError` with its own message and code, any other as internal.
        :class:`~trivet.errors.InvalidArgumentError` says that an input is at fault: then each request of the batch is
        executed by itself, so that it costs no other, unless they are steps of sequences.
        """


class RequestInstance(BackendInstance, ABC):
    """Executes requests, and answers each when and as often as it likes."""

    @abstractmethod
    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None] | None:
        """Return a response per request, in order; ``None`` in place of one, or of all, means ``request.respond``.

        Returned responses are final and go back to the event loop together, which costs least. ``request.respond`` may
        be called now or later, as often as there are responses; exactly one has ``final`` set. ``execute`` is called
        again while earlier requests are still unanswered. ``request.cancelled`` says that nobody waits any more;
        answer such a request all the same. A request whose ``rescheduled`` is set
        when ``execute`` returns, and that has no final response, goes back to the scheduler and is executed again. An
        exception fails those of ``requests`` that have no final response yet.
        """


class BackendModel(ABC):
    """What the instances of one model version share."""

    @abstractmethod
    def create_instance(self, context: InstanceContext) -> BackendInstance:
        """Called on the new instance's thread; instances of one model may be created concurrently.

        An exception fails the load; its message becomes the reason that the model is unavailable.
        """

    def close(self) -> None:
        """Free what the model holds, after all its instances were closed. An exception is logged, and nothing else."""
        return


class Backend(ABC):
    """One framework. Constructed with no arguments on a worker thread when the first model needs it."""

    def auto_complete(self, context: ModelContext) -> None:
        """Fill in what ``context.config`` leaves out: inputs, outputs, ``max_batch_size``.

        Called before validation when configurations may be completed. Change ``context.config`` in place; leave alone
        what the author set, and raise :class:`~trivet.errors.InvalidArgumentError` where it contradicts the model. The
        default does nothing.
        """
        return

    @abstractmethod
    def load(self, context: ModelContext) -> BackendModel:
        """Load one model version. Concurrent calls for different models are normal.

        Raise :class:`~trivet.errors.TrivetError` for what the operator can mend, with the fix in the message.
        """

    def trim(self) -> None:
        """Give back what the framework keeps of freed memory for its next use, above all on GPUs.

        Called on a worker thread when a model of this backend has left, and all that it held was freed; others may be
        executing. The default does nothing.
        """
        return

    def close(self) -> None:
        """The server stops; all models were closed."""
        return
