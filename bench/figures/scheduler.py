"""The dynamic batcher alone, with instances that do nothing; and what it costs a request in a whole engine.

Alone means no protocol, no engine and no threads: each request is queued, batched, and heard of as done. Beside it the
same through the default scheduler.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
from anyio.from_thread import start_blocking_portal
from trivet import datatypes
from trivet.config import normalize, parse_text_config
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.scheduling import Batch, DefaultScheduler, Scheduler, SchedulerContext
from trivet.server import SWITCH_INTERVAL_S
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_scheduler_dynamic import plugin
from trivet_scheduler_dynamic.batcher import DynamicBatcher

from bench.figures import engine
from bench.report import Report, at_least, at_most
from bench.repositories import repository
from bench.settings import Settings, rounds

FIXED = 'name: "m" max_batch_size: 32 input { name: "x" data_type: TYPE_FP32 dims: [ 16 ] }'
VARIABLE = 'name: "m" max_batch_size: 32 input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }'
PRIORITIES = "priority_levels: 2 default_priority_level: 1"
TIMEOUT = "default_queue_policy { default_timeout_microseconds: 60000000 max_queue_size: 1000 }"
BATCHERS = {
    "one shape": f"{FIXED} dynamic_batching {{ }}",
    "one shape, a delay of 1 ms": f"{FIXED} dynamic_batching {{ max_queue_delay_microseconds: 1000 }}",
    "8 shapes": f"{VARIABLE} dynamic_batching {{ }}",
    "ordered responses": f"{FIXED} dynamic_batching {{ preserve_ordering: true }}",
    "priorities and timeouts": f"{FIXED} dynamic_batching {{ {PRIORITIES} {TIMEOUT} }}",
}
DEFAULT = "default scheduler"
IN_FLIGHT = 256


class Instance:
    """Queues nothing: all instances share the figure's queue."""

    name = "instance"

    def submit(self, batch: Batch) -> None:
        raise NotImplementedError


def run(settings: Settings, report: Report) -> None:
    factories: dict[str, tuple[str, Callable[[SchedulerContext], Scheduler]]] = {
        DEFAULT: (FIXED, DefaultScheduler),
        **{name: (config, DynamicBatcher) for name, config in BATCHERS.items()},
    }
    with engines() as through:
        for order in rounds(settings, report, (*factories, *through)):
            for name in order:
                if name in through:
                    rate, p50_us = report.quietly(lambda name=name: through[name](settings.seconds))  # type: ignore[misc]
                    report.add(f"{name}, 32 in flight", rate, "requests/s")
                    report.add(f"{name}, one at a time, p50", p50_us, "µs")
                else:
                    config, factory = factories[name]
                    target = None if name == DEFAULT else at_least(100_000)
                    rate = report.quietly(partial(_rate, config, factory, settings.seconds))
                    report.add(name, rate, "requests/s", target)
    default, dynamic = (f"engine, {model}, one at a time, p50" for model in ("default", "dynamic"))
    report.difference("dynamic batching's share of one request", dynamic, default, at_most(30))


@contextmanager
def engines() -> Iterator[dict[str, Callable[[float], tuple[float, float]]]]:
    """A whole engine with a model that does nothing, behind either scheduler.

    Each measures for so many seconds and gives requests a second at 32 in flight, and the median time of one request
    alone in microseconds.
    """
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    registry = PluginRegistry.of(nothing=engine.NothingPlugin(), dynamic_batching=plugin)
    try:
        with repository() as models:
            for name, scheduling in (("default", ""), ("dynamic", "dynamic_batching { }")):
                (models.path / name / "1").mkdir(parents=True)
                (models.path / name / "1" / "model.nothing").touch()
                kind = 'parameters { key: "kind" value { string_value: "arrays" } }'
                (models.path / name / "config.pbtxt").write_text(f"{engine.CONFIG} {scheduling} {kind}")
            with (
                start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
                portal.wrap_async_context_manager(running_engine(models.path, registry=registry)) as running,
            ):

                def measure(submit: engine.Submit, seconds: float) -> tuple[float, float]:
                    rate, _ = portal.call(engine.closed_loop, submit, 32, seconds / 2)
                    return rate, portal.call(_one_at_a_time, submit, seconds / 2)

                yield {
                    f"engine, {name}": partial(measure, engine.through(running, name))
                    for name in ("default", "dynamic")
                }
    finally:
        sys.setswitchinterval(switch_interval)


async def _one_at_a_time(submit: engine.Submit, seconds: float) -> float:
    """The median time of one request in microseconds."""
    times: list[int] = []
    finished = anyio.Event()
    end = time.perf_counter() + seconds
    began = 0

    def done() -> None:
        times.append(time.perf_counter_ns() - began)
        if time.perf_counter() < end:
            start()
        else:
            finished.set()

    def start() -> None:
        nonlocal began
        began = time.perf_counter_ns()
        submit(done)

    start()
    await finished.wait()
    return statistics.median(times) / 1000


def _rate(text: str, factory: Callable[[SchedulerContext], Scheduler], seconds: float) -> float:
    """Requests a second with :data:`IN_FLIGHT` of them under way, on one thread."""
    config = parse_text_config(text, "bench")
    normalize(config)
    queue: deque[Batch] = deque()
    instances = (Instance(), Instance())
    scheduler = factory(
        SchedulerContext(
            config=config,
            spec=ModelSpec.from_config(config),
            instances=instances,
            submit_any=queue.append,
            waiting=queue.__len__,
            reject=lambda *_: None,
            answer=lambda *_: None,
            call_later=lambda *_: _Timer(),
        )
    )
    requests = [_request(1 + number % 8 if "-1" in text else 16) for number in range(IN_FLIGHT)]
    enqueue, done, clock = scheduler.enqueue, scheduler.batch_done, time.perf_counter_ns
    ordered, response = scheduler.orders_responses, InferenceResponse()
    for request in requests:
        request.queued_ns = clock()
        enqueue(request)
    count, began = 0, time.perf_counter()
    end = began + seconds
    while time.perf_counter() < end:
        for _ in range(64):
            batch = queue.popleft()
            if ordered:
                for request in batch.requests:
                    scheduler.deliver(request, response)
            done(instances[0], batch)
            for request in batch.requests:
                request.queued_ns = clock()
                enqueue(request)
            count += len(batch.requests)
    return count / (time.perf_counter() - began)


class _Timer:
    def cancel(self) -> None:
        pass


def _request(size: int) -> InferenceRequest:
    tensor = Tensor.from_wire("x", datatypes.FP32, (1, size), bytes(4 * size))
    return InferenceRequest("m", {"x": tensor})
