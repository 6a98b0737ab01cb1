"""The backend: models, and how instances share their sessions."""

from __future__ import annotations

import threading

from trivet.backend import ArrayInstance, Backend, BackendModel, InstanceContext, InstanceKind, ModelContext
from trivet.errors import InvalidArgumentError
from trivet.host_policy import HostPolicy

from trivet_backend_tf import autocomplete, graphdef, saved_model
from trivet_backend_tf.devices import start_pools
from trivet_backend_tf.files import Format, ModelFile, find_model
from trivet_backend_tf.instance import TensorFlowInstance
from trivet_backend_tf.loading import load_network
from trivet_backend_tf.network import Network
from trivet_backend_tf.runtime import load_failure
from trivet_backend_tf.settings import Settings, warn_of_unused
from trivet_backend_tf.signature import described
from trivet_backend_tf.validation import validate


class TensorFlowBackend(Backend):
    """TensorFlow. Source: Triton's tensorflow_backend, whose names, parameters and messages it shares."""

    def auto_complete(self, context: ModelContext) -> None:
        """Fill in ``platform``, ``max_batch_size``, ``dynamic_batching``, inputs and outputs.

        From the signature alone: no session is made, and no weights are read. A GraphDef has none. Raises what
        :meth:`load` does, and :class:`~trivet.errors.InvalidArgumentError` for what the model cannot have and for a
        GraphDef without inputs or outputs in its configuration.
        """
        config = context.config
        settings = Settings.read(context)
        file = find_model(context)
        config.platform = config.platform or file.format.value
        if file.format is Format.SAVED_MODEL:
            signature = saved_model.read(file.path, settings, context).signature
            autocomplete.complete(config, signature, settings.default_max_batch_size, context.logger)
        elif not config.input or not config.output:
            found = graphdef.placeholders(graphdef.read(file.path, context))
            raise InvalidArgumentError(
                f"unable to autofill for '{config.name}': a GraphDef has no signature, so config.pbtxt must describe"
                f" inputs and outputs; the graph's placeholders are {described(found)}"
            )

    def load(self, context: ModelContext) -> BackendModel:
        """Read the settings and find the model; sessions are created with the instances.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a setting or accelerator that is not allowed, and
        :class:`~trivet.errors.UnavailableError` where there is no model.
        """
        settings = Settings.read(context)
        file = find_model(context)
        warn_of_unused(context, context.logger, graphdef=file.format is Format.GRAPHDEF)
        start_pools(settings, context)
        return TensorFlowModel(context, settings, file)


class TensorFlowModel(BackendModel):
    """One model version.

    As in Triton each instance has a session of its own, with its own variables, unless ``MAX_SESSION_SHARE_COUNT`` lets
    some share one.
    """

    def __init__(self, context: ModelContext, settings: Settings, file: ModelFile) -> None:
        self._context = context
        self._settings = settings
        self._file = file
        self._lock = threading.Lock()
        self._sharing: dict[tuple[InstanceKind, int, HostPolicy], tuple[Network, int]] = {}
        """The newest session of each place, and how many instances have it."""
        self._loaded: list[Network] = []

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        """On the instance's thread, several at a time.

        Raises what :func:`~trivet_backend_tf.loading.load_network` and
        :func:`~trivet_backend_tf.validation.validate` raise.
        """
        network = self._network(context)
        config = self._context.config
        validate(config, network.signature, shapes=self._file.format is Format.SAVED_MODEL)
        try:
            return TensorFlowInstance(self._context, network)
        except Exception as error:
            raise load_failure(error, self._context.name) from error

    def _network(self, instance: InstanceContext) -> Network:
        most = self._settings.session_share_count
        if most == 1:
            return self._load(instance)
        policy = instance.host_policy
        place = (instance.kind, instance.device_id, policy if policy.binds else HostPolicy())
        with self._lock:
            network, users = self._sharing.get(place, (None, most))
            if network is None or users == most:
                network, users = self._load(instance), 0
            self._sharing[place] = (network, users + 1)
            return network

    def _load(self, instance: InstanceContext) -> Network:
        network = load_network(self._context, self._settings, self._file, instance)
        self._loaded.append(network)
        return network

    def close(self) -> None:
        """Free the sessions, whose instances are closed."""
        self._sharing.clear()
        for network in self._loaded:
            network.close()
        self._loaded.clear()
