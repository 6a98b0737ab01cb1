"""MiniLM through the server, against a plain loop over ``session.run`` in a process: what serving costs.

    python -m bench.minilm_onnx [--rounds 10] [--seconds 2]

Both sides use two threads of one intra-op thread each: two instances in the server, two looping threads beside it. The
input is one sentence of 32 tokens; the server gets it over HTTP with binary tensors, on 8 connections with one request
in flight on each. Slices of both alternate, so that what else the machine does falls on both; the ratio is the median
over the pairs. The server's start and memory are measured on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

EXAMPLES = Path(__file__).parent.parent / "examples" / "model_repository"
MODEL = EXAMPLES / "sentence_embedding" / "1" / "model.onnx"
SEQUENCE = 32
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
instance_group { count: 2 kind: KIND_CPU }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


def inputs() -> dict[str, np.ndarray[Any, Any]]:
    """One sentence: token ids, and all of them count."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, SEQUENCE))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def request(model: str, feeds: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """A whole HTTP request: binary tensors in, binary tensors out."""
    tensors = [
        {"name": n, "datatype": "INT64", "shape": a.shape, "parameters": {"binary_data_size": a.nbytes}}
        for n, a in feeds.items()
    ]
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(array.tobytes() for array in feeds.values())
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def loop(session: Any, feeds: dict[str, np.ndarray[Any, Any]], threads: int, seconds: float) -> float:
    """Inferences per second of ``threads`` threads that do nothing but run the session."""
    counts = [0] * threads
    start = time.perf_counter()
    end = start + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            session.run(None, feeds)
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - start)


async def serve_clients(port: int, message: bytes, connections: int, seconds: float) -> float:
    """Inferences per second over ``connections`` connections. Raises :class:`RuntimeError` for a failed one."""
    start = time.perf_counter()
    end = start + seconds

    async def client() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.perf_counter() < end:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(body.decode(errors="replace"))
            count += 1
        writer.close()
        await writer.wait_closed()
        return count

    counts = await asyncio.gather(*(client() for _ in range(connections)))
    return sum(counts) / (time.perf_counter() - start)


def resident_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def server(model: Path) -> Iterator[tuple[int, int, float]]:
    """``trivet serve`` on one model: HTTP port, process id, and seconds from start until it was ready."""
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder, "minilm", "1")
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(model.resolve())
        (version.parent / "config.pbtxt").write_text(CONFIG)
        ports = [free_port() for _ in range(2)]
        command = [sys.executable, "-m", "trivet", "serve", folder, "--http-port", str(ports[0])]
        command += ["--grpc-port", str(ports[1]), "--log-info=false"]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        try:
            wait_until_ready(ports[0], process)
            yield ports[0], process.pid, time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    ask = b"GET /v2/health/ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    for _ in range(3000):
        if process.poll() is not None:
            raise RuntimeError(f"trivet serve ended with status {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(ask)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise RuntimeError("trivet serve was not ready after 30 seconds")


def main() -> None:
    """Measure, and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model} is not there; build it with: python examples/build_repository.py --only all")

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    feeds = inputs()
    loops: list[float] = []
    served: list[float] = []
    with server(arguments.model) as (port, pid, ready):
        message = request("minilm", feeds)
        asyncio.run(serve_clients(port, message, arguments.connections, 0.5))
        for _ in range(arguments.rounds):
            loops.append(loop(session, feeds, 2, arguments.seconds))
            served.append(asyncio.run(serve_clients(port, message, arguments.connections, arguments.seconds)))
        memory = resident_megabytes(pid)
    weights = arguments.model.stat().st_size / 1e6
    ratios = [mine / theirs for mine, theirs in zip(served, loops, strict=True)]
    print(f"in-process loop  {statistics.median(loops):7.1f}/s  (best {max(loops):.1f})")
    print(f"trivet over HTTP {statistics.median(served):7.1f}/s  (best {max(served):.1f})")
    print(f"ratio            {statistics.median(ratios):7.2f}    (best over best {max(served) / max(loops):.2f})")
    print(f"ready after      {ready:7.2f} s")
    print(f"resident         {memory:7.0f} MB  ({memory - weights:.0f} MB beyond the {weights:.0f} MB model file)")


if __name__ == "__main__":
    main()
