"""An engine on the running event loop, and a server in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from trivet.engine import Engine, EngineOptions
from trivet.model_control import LoadFailure
from trivet.options import Option, Settings
from trivet.plugins import PluginRegistry
from trivet.server import Server, has_uvloop
from trivet.server_options import ALL_OPTIONS

T = TypeVar("T")

Repositories = str | Path | Sequence[str | Path]


@asynccontextmanager
async def running_engine(
    repository: Repositories,
    *,
    registry: PluginRegistry | None = None,
    allow_failures: bool = False,
    **options: Any,
) -> AsyncIterator[Engine]:
    """An engine that has loaded its models, on this event loop; stopped at the end.

    ``registry`` defaults to what is installed, ``options`` are fields of :class:`~trivet.engine.EngineOptions`. Raises
    :class:`RuntimeError` with every reason where a model fails to load, unless ``allow_failures``.
    """
    engine = Engine(
        registry or PluginRegistry.discover(), EngineOptions(model_repositories=_urls(repository), **options)
    )
    try:
        _check(await engine.start(), allow_failures)
        yield engine
    finally:
        await engine.stop()


class RunningServer:
    """A server that runs in another thread. Use it from any thread but that one."""

    def __init__(self, server: Server, portal: BlockingPortal, failures: Sequence[LoadFailure]) -> None:
        self._portal = portal
        self.server = server
        self.failures = failures
        """Models that did not load."""

    @property
    def engine(self) -> Engine:
        """Lives on the server's event loop: reach its methods through :meth:`call`."""
        return self.server.engine

    @property
    def http_url(self) -> str:
        """``127.0.0.1:PORT``, as tritonclient takes it."""
        return self.url("http")

    @property
    def grpc_url(self) -> str:
        """``127.0.0.1:PORT``, as tritonclient takes it."""
        return self.url("grpc")

    def url(self, listener: str) -> str:
        """Host and port of one listener. Raises :class:`LookupError` where there is no such listener."""
        addresses = self.server.addresses
        if not addresses.get(listener):
            raise LookupError(f"nothing listens as {listener!r}; there is {dict(addresses)}")
        return addresses[listener][0].partition("://")[2] or addresses[listener][0]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function or coroutine function on the server's event loop and return its result."""
        return self._portal.call(function, *args)


@contextmanager
def running_server(
    repository: Repositories,
    *,
    registry: PluginRegistry | None = None,
    allow_failures: bool = False,
    **settings: Any,
) -> Iterator[RunningServer]:
    """A whole server in a thread with its own event loop, on free ports of 127.0.0.1; drained and stopped at the end.

    ``settings`` are options of ``trivet serve`` by key (``model_control_mode="explicit"``). Raises
    :class:`RuntimeError` with every reason where a model fails to load, unless ``allow_failures``.
    """
    registry = registry or PluginRegistry.discover()
    options = (*ALL_OPTIONS, *registry.options())
    values = {**_loopback(options), "model_repository": _urls(repository), **settings}
    with start_blocking_portal("asyncio", backend_options={"use_uvloop": has_uvloop()}) as portal:
        server: Server = portal.call(Server, registry, Settings.of(options, **values))
        portal.call(server.open)
        try:
            failures: list[LoadFailure] = portal.call(server.load)
            _check(failures, allow_failures)
            yield RunningServer(server, portal, failures)
        finally:
            portal.call(server.stop, 5.0)


def _loopback(options: Sequence[Option]) -> dict[str, Any]:
    """Settings that let any number of servers run side by side."""
    values: dict[str, Any] = {}
    for option in options:
        if option.default is None:
            continue  # a listener that is off, or an address that follows another
        if option.name.endswith("-port") and option.kind == "integer":
            values[option.key] = 0
        elif option.name.endswith("-address"):
            values[option.key] = "127.0.0.1"
    return values


def _urls(repository: Repositories) -> list[str]:
    repositories = [repository] if isinstance(repository, (str, Path)) else repository
    return [str(one) for one in repositories]


def _check(failures: Sequence[LoadFailure], allow: bool) -> None:
    if failures and not allow:
        reasons = "\n".join(f"{failure.name}: {failure.reason}" for failure in failures)
        raise RuntimeError(f"models failed to load:\n{reasons}")
