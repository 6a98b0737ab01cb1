"""A plugin for tests that start ``trivet serve`` as a process: a backend that waits at named pipes, and a protocol.

A model's folder holds ``model.gated``. Where the version folder also has a named pipe ``load`` or ``execute``, loading
or executing reads it to the end first: opening the other side tells the test that the server is there, and closing it
lets the server go on. The protocol speaks JSON, one object per line: ``{"model": "m", "x": [1, 2]}`` or
``{"ready": true}``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from trivet import hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
)
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.hookspecs import BackendPlugin, ProtocolPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.options import Option
from trivet.service import Protocol, ServerContext
from trivet.tensor import Tensor


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    return [BackendPlugin(name="gated", factory=GatedBackend, model_filenames=("model.gated",))]


@hookimpl
def trivet_protocols() -> Sequence[ProtocolPlugin]:
    options = (Option("line-port", "integer", 0, "Port of the line protocol."),)
    return [ProtocolPlugin(name="line", factory=LineProtocol, options=options)]


def wait_at(pipe: Path) -> None:
    if pipe.exists():
        pipe.read_bytes()


class GatedBackend(Backend):
    def auto_complete(self, context: ModelContext) -> None:
        context.config.input.add(name="x", data_type="TYPE_FP64", dims=[-1])
        context.config.output.add(name="y", data_type="TYPE_FP64", dims=[-1])

    def load(self, context: ModelContext) -> BackendModel:
        wait_at(context.version_path / "load")
        if (context.version_path / "model.gated").read_text().strip() == "bad":
            raise InvalidArgumentError("the file says bad")
        return GatedModel(context.version_path)


class GatedModel(BackendModel):
    def __init__(self, path: Path) -> None:
        self.path = path

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return GatedInstance(self.path)


class GatedInstance(ArrayInstance):
    def __init__(self, path: Path) -> None:
        self.path = path

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        wait_at(self.path / "execute")
        return {"y": inputs["x"].numpy() * 2}


class LineProtocol(Protocol):
    def __init__(self, context: ServerContext) -> None:
        self._engine = context.engine
        self._port: int = context.settings["line_port"]
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self, grace_s: float) -> None:
        if self._server is not None:
            self._server.close()
        ended = list(self._connections.values())
        for writer in self._connections:
            writer.close()
        for event in ended:
            await event.wait()

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        sockets = self._server.sockets if self._server is not None else ()
        return {"line": [f"127.0.0.1:{socket.getsockname()[1]}" for socket in sockets]}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = self._connections[writer] = asyncio.Event()
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            del self._connections[writer]
            ended.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            question: dict[str, Any] = json.loads(line)
            if "ready" in question:
                self._write(writer, {"live": self._engine.live, "ready": self._engine.ready})
                continue
            x = Tensor.from_numpy("x", np.array(question["x"], np.float64))
            request = InferenceRequest(question["model"], {"x": x}, context=writer, on_response=self._respond)
            try:
                self._engine.submit(request)
            except TrivetError as error:
                self._write(writer, {"error": error.message, "code": error.code.value})

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        if response.error is not None:
            self._write(request.context, {"error": response.error.message, "code": response.error.code.value})
        else:
            self._write(request.context, {"y": response.outputs[0].numpy().tolist()})

    def _write(self, writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
        writer.write(json.dumps(answer).encode() + b"\n")
