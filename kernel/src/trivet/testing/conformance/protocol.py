"""The kit for protocols."""

from __future__ import annotations

import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from trivet.hookspecs import Offer, ProtocolPlugin
from trivet.plugins import PluginRegistry
from trivet.testing.conformance import leaks
from trivet.testing.conformance.models import FAILURE, KitModels
from trivet.testing.conformance.rules import PluginRules, offered, require
from trivet.testing.running import RunningServer, running_server

_PROTOCOL = "trivet.service.Protocol"
_SERVICE = "trivet.service.Service"


class ProtocolConformance(PluginRules, ABC):
    """Starts a server that speaks the protocol, and asks it with the author's client.

    The server has the models ``double`` (``y = 2 x``, FP32, any length, batches of up to 4), ``fails``, which raises,
    and ``waits``, which answers as ``double`` does, when the kit lets it.
    """

    protocol: ClassVar[str]
    """The name under which the plugin offers the protocol."""
    settings: ClassVar[dict[str, Any]] = {}
    """Options of ``trivet serve``, by key, that the server is to have."""

    @abstractmethod
    def infer(self, server: RunningServer, model: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ask ``model`` with the input ``x`` (of shape [rows, length]) over a connection of its own; give ``y``.

        Called from any thread, several at a time. Raise an exception of any kind, with the server's message in it,
        where the server answers with an error.
        """

    def leave(self, server: RunningServer, model: str, x: NDArray[np.float32], executing: Callable[[], object]) -> None:
        """Ask as :meth:`infer` does, and go before there is an answer: close the connection, or cancel the call.

        Send the request, call ``executing()``, which returns when the model has it, and go.
        """
        raise NotImplementedError

    def test_an_answer(self) -> None:
        """Batches of one row and of several, of any length."""
        with self._server() as (server, _):
            for shape in ((1, 1), (1, 3), (4, 5), (1, 10_000)):
                x = np.random.default_rng(1).random(shape, np.float32)
                y = self.infer(server, "double", x)
                require(np.array_equal(y, 2 * x), f"an input of shape {shape} is answered", _PROTOCOL, repr(y))

    def test_errors_are_told_and_cost_nothing_else(self) -> None:
        """A model that is not there, a batch that is too large, a model that fails."""
        with self._server() as (server, _):
            for model, rows, text in (("gone", 1, "gone"), ("double", 5, "4"), ("fails", 1, FAILURE)):
                try:
                    self.infer(server, model, np.ones((rows, 2), np.float32))
                except Exception as error:  # noqa: BLE001 - the author's client raises what it likes
                    found = f"{type(error).__name__}: {error}"
                else:
                    found = "an answer"
                require(text in found, f"a client is told of what is wrong with '{model}'", "trivet.errors", found)
                y = self.infer(server, "double", np.ones((1, 2), np.float32))
                require(y.tolist() == [[2, 2]], "an error costs no other request", _PROTOCOL, repr(y))

    def test_many_clients_at_once(self) -> None:
        """Each gets its own answer."""

        def ask(number: int) -> bool:
            x = np.full((1, 4), number, np.float32)
            return all(np.array_equal(self.infer(server, "double", x), 2 * x) for _ in range(5))

        with self._server() as (server, _), ThreadPoolExecutor(16) as clients:
            wrong = [number for number, right in enumerate(clients.map(ask, range(64))) if not right]
            require(not wrong, "each of many clients gets its own answer", _PROTOCOL, f"not so: clients {wrong}")

    def test_a_client_that_goes_cancels_its_request(self) -> None:
        """While the model executes it; others are answered as ever."""
        x = np.ones((1, 2), np.float32)
        with self._server() as (server, models):
            try:
                self.leave(server, "waits", x, lambda: models.started.wait(60))
            except NotImplementedError:
                pytest.skip("leave() is not written")
            waiting = server.engine.model("waits").in_flight
            gone = leaks.eventually(lambda: server.call(lambda: not waiting))
            models.gate.set()
            require(gone, "a client that goes cancels its request", _PROTOCOL, "the request is still in flight")
            y = self.infer(server, "double", x)
            require(y.tolist() == [[2, 2]], "a client that goes costs no other request", _PROTOCOL, repr(y))

    def test_a_request_in_flight_is_answered_while_the_server_stops(self) -> None:
        """Within the time that it is given."""
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(self.infer(server, "waits", np.ones((1, 2), np.float32)).tolist())
            except Exception as error:  # noqa: BLE001 - shown below
                answers.append(repr(error))

        client = threading.Thread(target=ask)
        with self._server() as (server, models):
            client.start()
            models.started.wait(60)
            release = threading.Timer(0.1, models.gate.set)
            release.start()
        client.join(60)
        release.join()
        require(answers == [[[2, 2]]], "stop() lets what is in flight finish", f"{_SERVICE}.stop", repr(answers))

    def test_nothing_is_left_of_a_server_that_stopped(self) -> None:
        """Threads and sockets; and its addresses can be bound again."""

        def once() -> None:
            with self._server() as (server, _):
                self.infer(server, "double", np.ones((1, 2), np.float32))

        with leaks.apart():
            for _ in range(3):
                once()
            before = leaks.held()
            for _ in range(5):
                once()
            leaks.eventually(lambda: leaks.held().threads <= before.threads)
            after = leaks.held()
        threads = sorted(after.threads - before.threads)
        require(not threads, "stop() ends the protocol's threads", f"{_SERVICE}.stop", ", ".join(threads))
        files = after.files - before.files
        require(files < 4, "stop() closes the protocol's sockets", f"{_SERVICE}.stop", f"{files} more after 5 servers")

    @contextmanager
    def _server(self) -> Iterator[tuple[RunningServer, KitModels]]:
        self._offered()
        models = KitModels()
        with tempfile.TemporaryDirectory() as folder:
            models.write(Path(folder))
            with running_server(folder, registry=models.registry(), **self.settings) as server:
                try:
                    yield server, models
                except BaseException:
                    models.gate.set()  # else a test that fails would wait for the model
                    raise

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.protocol, lambda registry: registry.protocols)
        assert isinstance(offer, ProtocolPlugin)
        return registry, offer
