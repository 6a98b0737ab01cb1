"""The kit for exporters."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trivet.hookspecs import ExporterPlugin, Offer
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing.conformance import leaks
from trivet.testing.conformance.models import KitModels
from trivet.testing.conformance.requests import Answers, request
from trivet.testing.conformance.rules import PluginRules, offered, require
from trivet.testing.running import RunningServer, running_server

_EXPORTER = "trivet.service.Exporter"
_SERVICE = "trivet.service.Service"


class ExporterConformance(PluginRules, ABC):
    """Starts a server with the exporter, sends requests to a model ``double``, and looks at what was exported."""

    exporter: ClassVar[str]
    """The name under which the plugin offers the exporter."""
    settings: ClassVar[dict[str, Any]] = {}
    """Options of ``trivet serve``, by key, that the server is to have."""

    @abstractmethod
    def exported(self, server: RunningServer) -> str:
        """What was exported until now, as text in which the model's name can be found."""

    def nowhere(self) -> dict[str, Any] | None:
        """Options with which the exporter sends to a place that does not answer; ``None`` where it is asked instead."""
        return None

    def test_models_and_what_they_did_are_exported(self) -> None:
        """By name, after a request and after one that failed."""
        with self._server(self.settings) as server:
            self.exported(server)
            for model in ("double", "fails"):
                self._infer(server, model)
            text = self.exported(server)
            for model in ("double", "fails"):
                require(model in text, f"what model '{model}' did is exported by its name", _EXPORTER, text[-500:])
            before = text
            for _ in range(3):
                self._infer(server, "double")
            require(self.exported(server) != before, "what is exported follows what happens", _EXPORTER, before[-500:])

    def test_a_model_that_goes_and_comes_back_breaks_nothing(self) -> None:
        """Models come and go while it exports."""
        with self._server({**self.settings, "model_control_mode": "explicit", "load_model": ["double"]}) as server:
            for _ in range(5):
                self._infer(server, "double")
                self.exported(server)
                server.call(server.engine.unload, "double")
                self.exported(server)
                server.call(server.engine.load, "double")
            self._infer(server, "double")
            require("double" in self.exported(server), "a model that came back is exported", _EXPORTER)

    def test_many_requests_at_once_are_answered_and_exported(self) -> None:
        """Some of them cancelled, some of a model that fails."""

        async def ask() -> None:
            answers = Answers(server.engine)
            models = ["double", "fails", "double"] * 16
            requests = [request(model, {"x": np.ones((1, 2), np.float32)}) for model in models]
            answers.submit(*requests)
            for one in requests[::4]:
                server.engine.cancel(one)
            await answers.all()

        with self._server(self.settings) as server:
            server.call(ask)
            text = self.exported(server)
            require("double" in text, "an exporter tells of a model after many requests at once", _EXPORTER, text[:500])

    def test_a_place_that_does_not_answer_costs_no_request(self) -> None:
        """The server starts, serves and stops without it."""
        settings = self.nowhere()
        if settings is None:
            return
        with self._server({**self.settings, **settings}) as server:
            self._infer(server, "double")

    def test_nothing_is_left_of_a_server_that_stopped(self) -> None:
        """Threads, files and sockets."""
        with leaks.apart():
            for _ in range(3):
                self._once()
            before = leaks.held()
            for _ in range(5):
                self._once()
            leaks.eventually(lambda: leaks.held().threads <= before.threads)
            after = leaks.held()
        threads = sorted(after.threads - before.threads)
        require(not threads, "stop() ends the exporter's threads", f"{_SERVICE}.stop", ", ".join(threads))
        files = after.files - before.files
        require(files < 4, "stop() closes the exporter's files", f"{_SERVICE}.stop", f"{files} more after 5 servers")

    def _once(self) -> None:
        with self._server(self.settings) as server:
            self._infer(server, "double")
            self.exported(server)

    def _infer(self, server: RunningServer, model: str) -> None:
        async def infer() -> None:
            x = Tensor.from_numpy("x", np.ones((1, 2), np.float32))
            response = await server.engine.infer(InferenceRequest(model, {"x": x}))
            failed = response.error is not None
            require(failed == (model == "fails"), "an exporter changes no answer", _EXPORTER, repr(response.error))

        server.call(infer)

    @contextmanager
    def _server(self, settings: dict[str, Any]) -> Iterator[RunningServer]:
        self._offered()
        models = KitModels()
        with tempfile.TemporaryDirectory() as folder:
            models.write(Path(folder))
            with running_server(folder, registry=models.registry(), **settings) as server:
                yield server

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.exporter, lambda registry: registry.exporters)
        assert isinstance(offer, ExporterPlugin)
        return registry, offer
