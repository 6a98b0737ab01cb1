"""The server: one engine, the protocols and exporters around it, and the life of the process.

Start order, and why. Sockets open first, so that a port that is taken is known at once and not after minutes of
loading, and so that a liveness probe gets its answer while models load; until loading is over the server says that it
is not ready. (tritonserver opens its endpoints after the models are loaded: a client that asks for readiness sees the
same, one that probes the port sees it open earlier.) A model that fails to load ends the process with status 1 unless
``--exit-on-error=false``, as in Triton.

Stop order: new requests are refused as unavailable, those in flight finish while the sockets stay open to deliver them,
then sockets close, then models unload. All of it within ``--exit-timeout-secs``; a second signal ends the process at
once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import anyio

from trivet import access_log, garbage, logs
from trivet.engine import Engine
from trivet.errors import TrivetError, UnavailableError, named_message_of
from trivet.hookspecs import Offer
from trivet.http import HttpTransport, Listener
from trivet.memory import MemoryProvider
from trivet.model_control import LoadFailure
from trivet.options import Settings
from trivet.plugins import PluginRegistry
from trivet.server_options import check_settings, engine_options
from trivet.service import Exporter, Protocol, ServerContext, Service
from trivet.startup import announce, load_progress

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter lock while another waits for it; Python's default is 5 ms.

An instance's thread that runs Python (a Python model, the copy into a batch) holds up the event loop that long, and all
requests with it. Beside a model that computes in pure Python, another model answered 2,100 to 2,700 requests a second
with 0.5 ms and 770 to 910 with 5 ms, at no cost to the first; with 0.1 ms the first lost half of its own."""

_DELIVERY_S = 5.0
"""Every answer is computed when sockets close; this long clients get to take the last ones. Not all that is left of the
exit timeout, since a connection that is merely open (an idle gRPC stream) would use it up."""

_REFUSAL_S = 0.5
"""How long clients get, after the exit timeout, to take the error that answers an abandoned request."""

_LINGERING_S = 1.0
"""How long threads that models left behind may keep the process from ending when everything is closed."""

_UNLOADING_S = 10.0
"""How long after the exit timeout closing sockets and unloading may take before the process is ended."""

PartT = TypeVar("PartT", bound=Service | HttpTransport | MemoryProvider)


class StartupError(TrivetError):
    """The server cannot start. The message is for the operator."""


class Server:
    """All parts of one server, on one event loop.

    Embed it with :meth:`start` and :meth:`stop`; ``trivet serve`` adds signals and the exit status (:func:`run`).
    """

    def __init__(self, registry: PluginRegistry, settings: Settings) -> None:
        """On the event loop's thread. ``settings`` has the values of ``trivet.server_options.ALL_OPTIONS`` and of
        ``registry.options()``.

        Raises :class:`~trivet.errors.InvalidArgumentError` for settings that are wrong or exclude each other, and for
        two plugins that offer one name.
        """
        check_settings(settings)
        registry.check()
        self._registry = registry
        self._settings = settings
        self._listeners: dict[str, Listener] = {}
        self._services: list[Service] = []
        self._transport: HttpTransport | None = None
        options = engine_options(settings)
        self._memory = self._make_memory()
        providers = self._memory.values()
        self.engine = Engine(
            registry,
            options,
            pinned_memory=next(filter(None, (provider.pinned for provider in providers)), None),
            gpu_memory=next(filter(None, (provider.gpu for provider in providers)), None),
        )
        self.engine.server_name = settings["id"]
        if settings["log_access"]:
            access_log.install(self.engine)

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Where it listens, by what is served there, e.g. ``{"http": ["http://0.0.0.0:8000"], "grpc": [...]}``."""
        found: dict[str, list[str]] = {}
        transports = [self._transport] if self._transport is not None else []
        parts: list[HttpTransport | Service] = [*transports, *self._services]
        for part in parts:
            for name, addresses in part.addresses.items():
                found.setdefault(name, []).extend(addresses)
        return found

    async def open(self) -> None:
        """Make all services and bind their sockets. Nothing is ready yet.

        Raises :class:`StartupError`, and then nothing is left open.
        """
        context = ServerContext(self.engine, self._settings, self._listeners, self._memory)
        try:
            for exporter in self._registry.exporters.values():
                self._create(exporter, Exporter, context)
            for protocol in self._registry.protocols.values():
                self._create(protocol, Protocol, context)
            if not any(isinstance(service, Protocol) for service in self._services):
                raise StartupError(
                    "no protocol is installed, so nobody could reach this server;"
                    " pip install trivet-protocol-kserve-v2 (see `trivet plugins` for what failed to load)"
                )
            if self.engine.tracing.sink is None:
                raise StartupError(
                    f"--trace-config mode={self.engine.tracing.mode}: no plugin takes these traces;"
                    " pip install trivet-exporter-opentelemetry"
                )
            for service in self._services:
                with _meant_for_operators(f"'{type(service).__module__}.{type(service).__qualname__}'"):
                    await service.start()
            if any(listener.routes for listener in self._listeners.values()):
                self._transport = self._choose_transport()
                await self._transport.start(self._listeners)
        except OSError as error:
            await self._close_services(0)
            reason = error.strerror or str(error)
            raise StartupError(reason if reason.startswith("cannot ") else f"cannot listen: {reason}") from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._close_services(0)
            raise

    async def load(self) -> list[LoadFailure]:
        """Load the models that the control mode asks for. Returns those that failed."""
        return await self.engine.start()

    async def stop(self, timeout_s: float) -> int:
        """Refuse new requests, let those in flight finish for at most ``timeout_s`` seconds, close sockets, unload.

        Returns how many requests were abandoned. Where that is not 0 models are left as they are: unloading would wait
        for an execution that does not end, and the caller is about to end the process.
        """
        self.engine.begin_drain()
        left = await self.engine.drained(timeout_s)
        # No request is lost without an answer, so those that are abandoned get one.
        self.engine.abandon()
        await self._close_services(_REFUSAL_S if left else min(timeout_s, _DELIVERY_S))
        if not left:
            await self.engine.stop()
        await self.engine.tracing.close()
        return left

    def _make_memory(self) -> dict[str, MemoryProvider]:
        """The kinds of shared memory. One whose code cannot be imported is left out; the registry has logged why."""
        memory: dict[str, MemoryProvider] = {}
        for name, offer in self._registry.memory_providers.items():
            try:
                memory[name] = self._make(offer, MemoryProvider, self._settings)
            except UnavailableError as error:
                logger.error("shared memory '%s' is not there: %s", name, error)
        return memory

    def _create(self, offer: Offer, kind: type[Service], context: ServerContext) -> None:
        """Make one service. One whose code cannot be imported is left out; the registry has logged why."""
        try:
            self._services.append(self._make(offer, kind, context))
        except UnavailableError as error:
            logger.error("'%s' is not served: %s", offer.name, error)

    def _make(self, offer: Offer, kind: type[PartT], *args: Any) -> PartT:
        """Call a factory. What it raises that is not for an operator becomes a :class:`StartupError`."""
        with _meant_for_operators(f"'{offer.name}' of package '{self._registry.package_of(offer)}'"):
            return self._registry.create(offer, kind, *args)

    def _choose_transport(self) -> HttpTransport:
        offers = self._registry.http_transports
        wanted = self._settings["http_transport"] or (next(iter(offers)) if len(offers) == 1 else "")
        if not offers:
            raise StartupError(
                "protocols want to be served over HTTP and no HTTP transport is installed;"
                " pip install trivet-transport-http"
            )
        if wanted not in offers:
            problem = f"there is no HTTP transport '{wanted}'" if wanted else "several HTTP transports are installed"
            raise StartupError(f"{problem}; choose one with --http-transport: {', '.join(sorted(offers))}")
        return self._make(offers[wanted], HttpTransport, self._settings)

    async def _close_services(self, grace_s: float) -> None:
        parts: list[Service | HttpTransport] = [*self._services]
        if self._transport is not None:
            parts.append(self._transport)
        async with anyio.create_task_group() as tasks:
            for part in parts:
                tasks.start_soon(_close, part, grace_s)
        self._services.clear()
        self._transport = None


@contextmanager
def _meant_for_operators(what: str) -> Iterator[None]:
    """Make a :class:`StartupError` of what a plugin's code raises without words for an operator."""
    try:
        yield
    except (TrivetError, OSError):
        raise
    except (Exception, SystemExit) as error:
        logger.error("%s failed to start", what, exc_info=error)
        raise StartupError(
            f"{what} failed to start: {named_message_of(error)}; uninstall its package to serve without it"
        ) from error


async def _close(part: Service | HttpTransport, grace_s: float) -> None:
    try:
        await part.stop(grace_s)
    except Exception:
        # One part that cannot close must not keep the others from closing.
        logger.exception("%s failed to stop", type(part).__qualname__)


def run(registry: PluginRegistry, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Call it on the main thread. Returns the process's exit status.

    0: drained and stopped. 1: could not start, or a model failed to load with ``--exit-on-error``. Where requests are
    still in flight after ``--exit-timeout-secs``, or anything hangs, the process ends here with status 1: threads that
    execute a model cannot be stopped.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    status = anyio.run(_serve, registry, settings, backend_options={"use_uvloop": has_uvloop()})
    _end_without(_lingering_threads(), status)
    return status


def _lingering_threads() -> list[threading.Thread]:
    """The threads that the interpreter would wait for: a model's code that loads for minutes, or starts its own."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    for thread in others:
        thread.join(_LINGERING_S / len(others))
    return [thread for thread in others if thread.is_alive()]


def _end_without(threads: Sequence[threading.Thread], status: int) -> None:
    if threads:
        logger.warning("ending without %s, still at work", ", ".join(repr(thread.name) for thread in threads))
        logs.flush()
        os._exit(status)


def has_uvloop() -> bool:
    """Whether the faster event loop is installed."""
    return importlib.util.find_spec("uvloop") is not None


class _Stopping:
    """The first signal: it ends loading early, and the wait of a server that is up."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.loading = anyio.CancelScope()

    def request(self) -> None:
        self.requested.set()
        self.loading.cancel()


async def _serve(registry: PluginRegistry, settings: Settings) -> int:
    stopping = _Stopping()
    status = 1
    try:
        server = Server(registry, settings)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_signals, stopping, settings["exit_timeout_secs"])
            try:
                status = await _live(server, settings, stopping)
            except TrivetError as error:
                # Reported here: a task group would wrap it into a group of one.
                logger.error("%s", error)
            finally:
                tasks.cancel_scope.cancel()
    except TrivetError as error:
        logger.error("%s", error)
    return status


async def _live(server: Server, settings: Settings, stopping: _Stopping) -> int:
    """From the first socket to the last."""
    timeout_s: float = settings["exit_timeout_secs"]
    started = perf_counter()
    await server.open()
    try:
        failures: list[LoadFailure] | None = None
        with stopping.loading, load_progress(server.engine):
            failures = await server.load()
        if failures is not None:
            await announce(server.engine, server.addresses, failures, perf_counter() - started)
            _check_failures(failures, settings)
            garbage.set_aside()
            await stopping.requested.wait()
    except TrivetError:
        await server.stop(0)
        raise
    left = await server.stop(timeout_s)
    if left:
        _exit_now(f"exit timeout of {timeout_s:g} s passed with {left} requests in flight; exiting")
    logger.info("stopped")
    return 0


def _check_failures(failures: Sequence[LoadFailure], settings: Settings) -> None:
    if failures and settings["exit_on_error"]:
        names = ", ".join(f"'{failure.name}'" for failure in failures)
        raise StartupError(
            f"failed to load {names}; exiting because of --exit-on-error"
            " (--exit-on-error=false serves the other models)"
        )


async def _watch_signals(stopping: _Stopping, timeout_s: float) -> None:
    """Request the stop at the first SIGTERM or SIGINT, and leave the second to the operating system."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        first = signal.Signals(await anext(aiter(signals)))
    # Not a handler of ours: it would wait for an event loop that perhaps hangs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    logger.info("%s: finishing requests in flight (at most %g s); once more to exit at once", first.name, timeout_s)
    watchdog = threading.Timer(
        timeout_s + _UNLOADING_S, _exit_now, ("stopping takes longer than the exit timeout; exiting",)
    )
    watchdog.daemon = True
    watchdog.start()
    stopping.request()


def _exit_now(reason: str) -> None:
    """End the process without waiting for threads that may never return."""
    logger.error("%s", reason)
    logs.flush()
    os._exit(1)
