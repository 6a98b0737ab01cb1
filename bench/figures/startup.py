"""How long until a server with an ONNX model is ready, what is resident then, and what importing the kernel costs.

The server with a tiny model is also started where of all frameworks and backends ONNX Runtime is installed alone: what
is not used is to cost nothing.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from bench import machine, servers
from bench.calls import Call
from bench.report import Report, at_most
from bench.repositories import SENTENCE_EMBEDDING, repository, tiny_onnx
from bench.settings import Settings, rounds

_IMPORT = """
import sys, time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""
# The least that a process with ONNX Runtime needs: what is resident beyond it is Trivet.
_BARE = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
session.run(None, {"x": numpy.ones((1, 16), numpy.float32)})
print(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""
_EVERYTHING, _FEW = "ready, all frameworks installed", "ready, ONNX Runtime alone installed"
_FRAMEWORKS = ("torch", "functorch", "tensorflow", "keras", "tensorrt")
_BACKENDS = ("trivet_backend_torch", "trivet_backend_tf", "trivet_backend_trt")
# -S leaves out this environment's packages; those of a folder take their place.
_IN_FOLDER = """
import runpy, site, sys
site.addsitedir(sys.argv.pop(1))
runpy.run_module("trivet", run_name="__main__", alter_sys=True)
"""


def run(settings: Settings, report: Report) -> None:
    numbers = np.ones((1, 16), np.float32)
    call = Call("tiny", {"x": numbers}, "y")

    def start_tiny() -> tuple[float, float]:
        with servers.trivet(small.path) as server:
            call.verify(server, numbers * 2)
            return _ready(server), machine.resident_bytes(server.pid) / machine.MB

    def start_large() -> float:
        with servers.trivet(large.path) as server:
            return _ready(server)

    def start_among(packages: Path) -> float:
        with servers.trivet(small.path, program=(sys.executable, "-S", "-c", _IN_FOLDER, str(packages))) as server:
            call.verify(server, numbers * 2)
            return _ready(server)

    with repository() as small, repository() as large, tempfile.TemporaryDirectory() as folder:
        everything, few = Path(folder, "everything"), Path(folder, "few")
        _link_packages(everything)
        _link_packages(few, without=(*_FRAMEWORKS, *_BACKENDS))
        tiny = Path(folder, "model.onnx")
        tiny_onnx(tiny)
        small.onnx("tiny", tiny, "")
        large.onnx("minilm", SENTENCE_EMBEDDING, "")
        for _ in rounds(settings, report, ()):
            ready_s, resident_mb = report.quietly(start_tiny)
            report.add("ready, tiny model", ready_s, "s", at_most(2.0))
            report.add("ready, MiniLM (90 MB)", report.quietly(start_large), "s", at_most(2.0))
            report.add("resident, tiny model", resident_mb, "MB", at_most(150))
            for name, packages in ((_EVERYTHING, everything), (_FEW, few)):
                report.add(name, report.quietly(partial(start_among, packages)), "s")
            bare = float(_python(_BARE, str(tiny))) * 1024 / machine.MB
            report.add("resident, ONNX Runtime and numpy alone", bare, "MB")
            for module, target in (("trivet", at_most(150)), ("trivet.engine", None), ("trivet.cli", None)):
                took_ms = report.quietly(partial(_import_ms, module))
                report.add(f"import {module}", took_ms, "ms", target)
    report.ratio("ready, all frameworks installed / one", _EVERYTHING, _FEW, at_most(1.05))


def _link_packages(folder: Path, without: tuple[str, ...] = ()) -> None:
    """A folder with this environment's packages, but for those whose names begin with one of ``without``."""
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.removeprefix("_editable_impl_").startswith(without):
            (folder / entry.name).symlink_to(entry)


def _ready(server: servers.Server) -> float:
    """Seconds from starting the process until it said that it is ready, once it has shown that it is."""
    server.call("GET", "/v2/health/ready")
    return server.ready_s


def _import_ms(module: str) -> float:
    return float(_python(_IMPORT.format(module=module))) * 1e3


def _python(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout
