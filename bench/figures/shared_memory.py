"""Tensors in system shared memory, beside HTTP binary and beside the real Triton with the same Python model.

The client is a raw socket that repeats one request, and does not touch its tensors: with shared memory they are where
a program would have made them.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray

from bench import servers
from bench.calls import Call
from bench.figures.large import Caller
from bench.report import Report, at_least, at_most
from bench.repositories import MODELS, repository
from bench.servers import Server, ServerError
from bench.settings import Settings, rounds

KB, MB = 1024, 1024 * 1024
SIZES = {"4 KB": 4 * KB, "1 MB": MB, "16 MB": 16 * MB}
SMALL, LARGE = ("64 KB", 64 * KB), ("256 MB", 256 * MB)
CONCURRENT = 8

_numbers = itertools.count()


def run(settings: Settings, report: Report) -> None:
    with ExitStack() as stack:
        models = stack.enter_context(repository())
        for model in ("identity", "untouched"):
            models.link(MODELS / model)
        trivet = stack.enter_context(servers.trivet(models.path))
        triton = stack.enter_context(servers.real_triton(models.path))
        numbers = np.arange(16 * MB // 4, dtype=np.float32)
        identity = Call("identity", {"INPUT0": numbers}, "OUTPUT0")
        for server in (trivet, triton):
            identity.verify(server, numbers)
            _verify(server)
        for order in rounds(settings, report, (trivet, triton)):
            for server in order:
                for size, byte_size in SIZES.items():
                    _add(report, f"{size}, shared memory, {server.name}", server, byte_size, 1, settings)
                binary = partial(_binary, server, identity, 1, settings.seconds)
                report.add(f"16 MB, HTTP binary, {server.name}", report.quietly(binary), "requests/s")
            name = f"16 MB, {CONCURRENT} concurrent"
            _add(report, f"{name}, shared memory, trivet", trivet, 16 * MB, CONCURRENT, settings)
            binary = partial(_binary, trivet, identity, CONCURRENT, settings.seconds)
            report.add(f"{name}, HTTP binary, trivet", report.quietly(binary), "requests/s")
            for model, what in (("untouched", "read"), ("identity", "given back in place")):
                times = report.quietly(partial(_times, trivet, model, (SMALL[1], LARGE[1]), settings.seconds))
                for (size, _), p50_us in zip((SMALL, LARGE), times, strict=True):
                    report.add(f"{size}, {what}, one at a time, p50", p50_us, "µs")
    for way in ("16 MB", f"16 MB, {CONCURRENT} concurrent"):
        shared, binary_name = f"{way}, shared memory, trivet", f"{way}, HTTP binary, trivet"
        report.ratio(f"{way}, shared memory / HTTP binary", shared, binary_name, at_least(3.0))
    for size in SIZES:
        ours, peer = (f"{size}, shared memory, {name}" for name in ("trivet", "triton"))
        report.ratio(f"{size}, shared memory, trivet / triton", ours, peer, at_least(1.0))
    ours, peer = "16 MB, HTTP binary, trivet", "16 MB, HTTP binary, triton"
    report.ratio("16 MB, HTTP binary, trivet / triton", ours, peer, at_least(3.0))
    for what in ("read", "given back in place"):
        large, small = (f"{size}, {what}, one at a time, p50" for size, _ in (LARGE, SMALL))
        report.difference(f"{LARGE[0]} beyond {SMALL[0]}, {what}", large, small, at_most(20))


class SharedCall:
    """A request whose tensors are in regions that this made, as large as each other. Fits :class:`Caller`."""

    def __init__(self, model: str, source: str, target: str, byte_size: int) -> None:
        def region(name: str, size: int) -> dict[str, object]:
            return {"shared_memory_region": name, "shared_memory_byte_size": size}

        output = byte_size if model == "identity" else 8
        document = {
            "inputs": [
                {
                    "name": "INPUT0",
                    "datatype": "FP32",
                    "shape": [byte_size // 4],
                    "parameters": region(source, byte_size),
                }
            ],
            "outputs": [{"name": "OUTPUT0", "parameters": region(target, output)}],
        }
        self.http_path = f"/v2/models/{model}/infer"
        self.http_body = json.dumps(document).encode()
        self.http_header_length = len(self.http_body)


@contextmanager
def _region(server: Server, byte_size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """A region of the server, touched once: its name, and its bytes, of which none may be kept."""
    memory = SharedMemory(create=True, size=byte_size)
    name = f"bench_{next(_numbers)}"
    try:
        view = np.ndarray(memory.size, np.uint8, memory.buf)
        view[:] = 1
        document = {"key": f"/{memory.name}", "offset": 0, "byte_size": byte_size}
        server.call("POST", f"/v2/systemsharedmemory/region/{name}/register", json.dumps(document).encode())
        yield name, view
        server.call("POST", f"/v2/systemsharedmemory/region/{name}/unregister")
    finally:
        del view  # it would keep the memory from being closed
        memory.close()
        memory.unlink()


def _verify(server: Server) -> None:
    """Raises :class:`~bench.servers.ServerError` where an output is not where it should be."""
    with _region(server, 64 * KB) as (source, given), _region(server, 64 * KB) as (target, taken):
        given[:] = np.random.default_rng(0).integers(0, 256, 64 * KB, np.uint8)
        Caller(server.http, SharedCall("identity", source, target, 64 * KB))()
        if not np.array_equal(given, taken):
            raise ServerError(f"{server.name} gave back what it did not get")
        Caller(server.http, SharedCall("untouched", source, target, 64 * KB))()
        if taken[:8].view(np.int64)[0] != 16 * KB:
            raise ServerError(f"{server.name} counted wrongly")


def _add(report: Report, name: str, server: Server, byte_size: int, concurrent: int, settings: Settings) -> None:
    report.add(name, report.quietly(partial(_shared, server, byte_size, concurrent, settings.seconds)), "requests/s")


def _shared(server: Server, byte_size: int, concurrent: int, seconds: float) -> float:
    """Requests a second to ``identity`` by shared memory, each caller with regions of its own."""
    with ExitStack() as stack:
        calls = []
        for _ in range(concurrent):
            source, target = (stack.enter_context(_region(server, byte_size))[0] for _ in range(2))
            calls.append(SharedCall("identity", source, target, byte_size))
        return _rate(server, calls, seconds)


def _binary(server: Server, call: Call, concurrent: int, seconds: float) -> float:
    return _rate(server, [call] * concurrent, seconds)


def _rate(server: Server, calls: Sequence[Call | SharedCall], seconds: float) -> float:
    callers = [Caller(server.http, call) for call in calls]
    try:
        with ThreadPoolExecutor(len(callers)) as threads:
            rates: list[float] = list(threads.map(lambda caller: caller.rate(seconds), callers))
            return sum(rates)
    finally:
        for caller in callers:
            caller.close()


def _times(server: Server, model: str, sizes: Sequence[int], seconds: float) -> list[float]:
    """The median time of a request of each size, in turn, in µs; an output as large goes where its input is."""
    with ExitStack() as stack:
        callers = []
        for size in sizes:
            source, _ = stack.enter_context(_region(server, size))
            target = source if model == "identity" else stack.enter_context(_region(server, 8))[0]
            caller = Caller(server.http, SharedCall(model, source, target, size))
            stack.callback(caller.close)
            caller()
            callers.append(caller)
        times: list[list[int]] = [[] for _ in sizes]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for caller, taken in zip(callers, times, strict=True):
                began = time.perf_counter_ns()
                caller()
                taken.append(time.perf_counter_ns() - began)
        return [statistics.median(taken) / 1000 for taken in times]
