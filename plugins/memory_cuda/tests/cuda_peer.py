"""A client in a process of its own, with memory on a real GPU."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from cuda.bindings import runtime

_ERROR, _COUNT = runtime.cudaGetDeviceCount()
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(_ERROR) or not _COUNT, reason="needs a CUDA device; this machine has none"),
]

SIZE = 4 << 20
PEER = f"""
import base64, ctypes, sys
from cuda.bindings import runtime as cuda

def call(function, *arguments):
    error, *results = function(*arguments)
    assert not error, (function, error)
    return results[0] if results else None

def allocate():
    address = call(cuda.cudaMalloc, {SIZE})
    handle = call(cuda.cudaIpcGetMemHandle, address)
    print(base64.b64encode(ctypes.string_at(handle.getPtr(), 64)).decode(), flush=True)
    return address

address = allocate()
host = (ctypes.c_ubyte * {SIZE})()
for line in sys.stdin:
    command, offset, data = line.split()
    offset, data = int(offset), base64.b64decode(data)
    if command == "write":
        call(cuda.cudaMemcpy, address + offset, data, len(data), cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        call(cuda.cudaDeviceSynchronize)  # a copy of pageable memory may return before it is there
        print("done", flush=True)
    elif command == "anew":
        call(cuda.cudaFree, address)
        address = allocate()
    else:
        size = int(data)
        call(cuda.cudaMemcpy, host, address + offset, size, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        print(base64.b64encode(bytes(host[:size])).decode(), flush=True)
"""


class Peer:
    """A client: a process with memory of its own, since CUDA opens no handle in the process that exported it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.handle = base64.b64decode(self._line())

    def write(self, data: bytes, offset: int = 0) -> None:
        assert self._ask("write", offset, data) == "done"

    def read(self, byte_size: int, offset: int = 0) -> bytes:
        return base64.b64decode(self._ask("read", offset, str(byte_size).encode()))

    def anew(self) -> None:
        """Free the memory and make as much again, as a rule at the same address."""
        self.handle = base64.b64decode(self._ask("anew", 0, b"-"))

    def _ask(self, command: str, offset: int, data: bytes) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {offset} {base64.b64encode(data).decode()}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate()
