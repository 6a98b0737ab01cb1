"""A Python model that calls another one: what a call costs beside asking that other model at once.

``direct`` asks a Python model that does nothing; ``exec`` and ``async_exec`` ask one that calls it, and ``exec ten
times`` one that calls it ten times over, so that the call itself shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from trivet.plugins import PluginRegistry
from trivet.server import SWITCH_INTERVAL_S
from trivet.testing import running_engine
from trivet_backend_python import plugin

from bench.figures.engine import CONFIG, closed_loop, through
from bench.report import Report
from bench.repositories import repository
from bench.settings import Settings, rounds

TIMES = 10

PRELUDE = """
import triton_python_backend_utils as pb_utils

def answer(tensor):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", tensor.as_numpy())])

def ask(request):
    return pb_utils.InferenceRequest(
        model_name="direct", requested_output_names=["OUTPUT0"], inputs=request.inputs())

class TritonPythonModel:
"""
MODELS = {
    "direct": """
    def execute(self, requests):
        return [answer(request.inputs()[0]) for request in requests]
""",
    "exec": """
    def execute(self, requests):
        return [answer(ask(request).exec().output_tensors()[0]) for request in requests]
""",
    "async_exec": """
    async def execute(self, requests):
        return [answer((await ask(request).async_exec()).output_tensors()[0]) for request in requests]
""",
    "exec ten times": f"""
    def execute(self, requests):
        for request in requests:
            for _ in range({TIMES - 1}):
                ask(request).exec()
        return [answer(ask(request).exec().output_tensors()[0]) for request in requests]
""",
}


def run(settings: Settings, report: Report) -> None:
    with repository() as models:
        for name, source in MODELS.items():
            version = models.path / name / "1"
            version.mkdir(parents=True)
            (version / "model.py").write_text(PRELUDE + source)
            (version.parent / "config.pbtxt").write_text(CONFIG.replace("nothing", "python"))
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            _measure(models.path, settings, report)
        finally:
            sys.setswitchinterval(switch_interval)
    for name in MODELS:
        if name != "direct":
            report.difference(f"{name}, what it adds", f"{name}, one at a time", "direct, one at a time")


def _measure(models: Path, settings: Settings, report: Report) -> None:
    registry = PluginRegistry.of(python=plugin)
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(running_engine(models, registry=registry)) as engine,
    ):

        def run(name: str, in_flight: int) -> float:
            submit = through(engine, name)
            rate, _ = report.quietly(lambda: portal.call(closed_loop, submit, in_flight, settings.seconds))
            return 1e6 / rate

        for order in rounds(settings, report, tuple(MODELS)):
            for name in order:
                report.add(f"{name}, one at a time", run(name, 1), "µs/request")
                report.add(f"{name}, 32 in flight", run(name, 32), "µs/request")
