"""The exporter: hands traces, metrics and the log to threads that send them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from anyio import create_task_group, to_thread
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from trivet.engine import Engine
from trivet.machine import Gpus, Machine
from trivet.memory import MemoryProvider
from trivet.metrics import MetricFamily, MetricKind
from trivet.server_metrics import LoopLag, read_cache, read_pools
from trivet.service import Exporter
from trivet.traced import PlainTrace, Trace
from trivet.tracing import Sampler, TraceSink

from trivet_exporter_opentelemetry.batcher import Batcher
from trivet_exporter_opentelemetry.log_records import Line, LogEncoder, LogQueue
from trivet_exporter_opentelemetry.metrics import MetricEncoder
from trivet_exporter_opentelemetry.options import Batching, ExportSettings
from trivet_exporter_opentelemetry.sender import Sender
from trivet_exporter_opentelemetry.spans import PLAIN_SPANS, SpanEncoder, caller_of, count_spans

DROPPED = "trivet_otlp_dropped"
"""Among the server's own metrics: what was not delivered, by signal (label ``signal``)."""

_FLUSH_S = 5.0
"""How long the last batches may take when the server stops, unless that has to be over sooner."""


class Spans(TraceSink):
    """Takes traces for the batcher."""

    def __init__(self, batcher: Batcher[Trace | PlainTrace], shown: Mapping[str, str]) -> None:
        self._batcher = batcher
        self._shown = shown

    def add(self, trace: Trace) -> None:
        self._batcher.put(trace, count_spans(trace))

    def add_plain(self, trace: PlainTrace, sampler: Sampler) -> None:
        self._batcher.put(trace, PLAIN_SPANS)

    def wanted(self, context: Any) -> bool | None:
        """As the caller decided for the whole trace, which this is a part of (W3C's flag ``sampled``)."""
        caller = caller_of(context)
        return None if caller is None else caller.sampled

    @property
    def shown(self) -> Mapping[str, str]:
        return self._shown

    async def close(self) -> None:
        await to_thread.run_sync(self._batcher.close, _FLUSH_S)


class OpenTelemetryExporter(Exporter):
    """Made and stopped on the event loop; of a request it costs a look at its trace, where it has one."""

    def __init__(self, engine: Engine, memory: Collection[MemoryProvider], settings: ExportSettings) -> None:
        self._engine = engine
        self._memory = memory
        self._settings = settings
        self._dropped: MetricFamily = engine.metrics.family(
            DROPPED, "Spans, metrics and log records that were not delivered to a collector", MetricKind.COUNTER
        )
        resource = {
            "service.version": engine.version,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": str(os.getpid()),
            **settings.resource,
        }
        self._spans: Batcher[Trace | PlainTrace] | None = None
        self._metrics: Batcher[list[Metric]] | None = None
        self._logs: Batcher[Line] | None = None
        self._log_queue: LogQueue | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._metric_encoder = MetricEncoder(resource, engine.version)
        self._lag = LoopLag()
        self._machine = Machine(settings.metrics_interval_s)
        self._gpus: Gpus | None = None
        if settings.traces is not None:
            encode = SpanEncoder(resource, engine.version).encode
            self._spans = Batcher("spans", Sender(settings.traces), settings.batching, encode, self._count("traces"))
            engine.tracing.use(Spans(self._spans, settings.shown))
        if settings.metrics is not None:
            # Older readings say nothing that newer ones do not: one waits while one is sent.
            self._metrics = Batcher(
                "readings of metrics",
                Sender(settings.metrics),
                Batching(max_queue=1, delay_s=settings.metrics_interval_s, max_batch=1),
                self._encode_metrics,
                self._count("metrics"),
            )
        if settings.logs is not None:
            self._logs = Batcher(
                "log records",
                Sender(settings.logs),
                settings.batching,
                LogEncoder(resource, engine.version).encode,
                self._count("logs"),
            )
            self._log_queue = LogQueue(self._logs.put)

    def _count(self, signal: str) -> Any:
        return self._dropped.metric({"signal": signal}).increment

    async def start(self) -> None:
        if self._spans is not None:
            self._spans.start()
        if self._metrics is not None:
            self._gpus = await to_thread.run_sync(Gpus.find)
            self._lag.start()
            self._metrics.start()
            self._collecting = asyncio.ensure_future(self._collect_regularly())
        if self._logs is not None and self._log_queue is not None:
            self._logs.start()
            logging.getLogger().addHandler(self._log_queue)

    async def _collect_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._settings.metrics_interval_s)
            self._collect()

    def _collect(self) -> None:
        """What is read on the event loop; the rest is when it is encoded."""
        assert self._metrics is not None
        encoder = self._metric_encoder
        readings = (*read_cache(self._engine), *read_pools(self._memory), self._lag.read())
        self._metrics.put([*encoder.of_models(self._engine), *encoder.of_readings(readings)])

    def _encode_metrics(self, collected: Sequence[list[Metric]]) -> bytes:
        """On the batcher's thread."""
        readings = [*self._engine.metrics.read(), *self._machine.read()]
        if self._gpus is not None:
            readings += self._gpus.read()
        encoder = self._metric_encoder
        return encoder.encode([*collected[-1], *encoder.of_readings(readings)])

    async def stop(self, grace_s: float) -> None:
        """Send the last of metrics and log, side by side; traces go on until the last request is answered, and end with
        the engine's tracing.
        """
        flush_s = min(grace_s, _FLUSH_S)
        if self._collecting is not None:
            self._collecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._collecting
            self._collecting = None
        async with create_task_group() as tasks:
            if self._metrics is not None:
                self._lag.stop()
                self._collect()
                metrics, self._metrics = self._metrics, None
                tasks.start_soon(to_thread.run_sync, metrics.close, flush_s)
            if self._log_queue is not None and self._logs is not None:
                logging.getLogger().removeHandler(self._log_queue)
                logs, self._logs = self._logs, None
                tasks.start_soon(to_thread.run_sync, logs.close, flush_s)
        if self._gpus is not None:
            gpus, self._gpus = self._gpus, None
            await to_thread.run_sync(gpus.close)
