"""Each backend with real models, 32 in flight, alone, and on two instances, beside a loop over its framework.

Every model has one thread in each instance, so that the load generator and the server find a core of their own, and
serves requests of one row in batches of up to 8; the loop gets batches of 8 made beforehand, with as many threads.
``--models`` names those to measure: a backend (``onnxruntime``), a model, or both (``pytorch/image_classification``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from trivet.config.model_config_pb2 import ModelConfig, ModelInstanceGroup

from bench import servers
from bench.calls import Call
from bench.load import Load, checked, wrk
from bench.peers import framework_loop
from bench.report import Report, at_least, at_most
from bench.repositories import EXAMPLES, Repository, existing, repository
from bench.settings import Settings, rounds

IN_FLIGHT = 32
BATCH = 8
INSTANCES = 2
_WARM_UP_S = 1.0
_ROWS = 256
"""How many answers a measurement of throughput waits for at least: the batch that its end cuts off is then hardly 2 %
of it, however slow the model is."""
_SERVED, _LOOP, _PROCESSOR = f": served, {IN_FLIGHT} in flight", ": loop", ", processor time"
_QUANTITIES = (
    _SERVED,
    f": served, {INSTANCES} instances",
    _LOOP,
    f": {INSTANCES} loops",
    ": served, one in flight, p50",
    ": loop, one row, p50",
)


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros((1, *shape), np.float32)


_TOKENS = np.arange(1000, 1032, dtype=np.int64).reshape(1, 32)
_SENTENCE = {"input_ids": _TOKENS, "attention_mask": np.ones_like(_TOKENS), "token_type_ids": np.zeros_like(_TOKENS)}
_PIXELS = _zeros(3, 224, 224)
_SOUND = np.sin(np.arange(43844, dtype=np.float32) / 8).reshape(1, -1, 1)


@dataclass(frozen=True)
class Pair:
    """An example model and the backend that serves it."""

    backend: str
    """A key of :data:`THREADS`, and of ``FRAMEWORKS`` in ``bench/peers/framework_loop.py``."""
    example: str
    """Its folder in ``examples/model_repository``; its configuration is taken, but for batching and instances."""
    inputs: framework_loop.Arrays
    """Of one request, by name, in the order in which the framework takes them; of one row where the model batches."""
    output: str
    file: str = "model.onnx"
    """In the version's folder."""
    batch: int = BATCH
    """1 for a model that does not batch."""

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.example}"


THREADS = {
    "onnxruntime": ("intra_op_thread_count",),
    "pytorch": ("INTRA_OP_THREAD_COUNT",),
    "tensorflow": ("TF_NUM_INTRA_THREADS", "TF_NUM_INTER_THREADS"),
}
"""By backend, the parameters that say how many threads an instance has."""
MODULES = {"onnxruntime": "onnxruntime", "pytorch": "torch", "tensorflow": "tensorflow"}
"""By backend, the module without which its pairs are left out."""

PAIRS = (
    Pair("onnxruntime", "image_classification", {"image": _PIXELS}, "probabilities"),
    Pair("onnxruntime", "sentence_embedding", _SENTENCE, "sentence_embedding"),
    Pair("onnxruntime", "file_type", {"bytes": np.zeros((1, 2048), np.int32)}, "target_label"),
    Pair("onnxruntime", "text_detection", {"x": _zeros(3, 320, 320)}, "fetch_name_0"),
    Pair("onnxruntime", "text_orientation", {"x": _zeros(3, 48, 192)}, "save_infer_model/scale_0.tmp_1"),
    Pair("onnxruntime", "text_recognition", {"x": _zeros(3, 48, 320)}, "fetch_name_0"),
    Pair(
        "onnxruntime",
        "voice_activity",
        {"input": _zeros(576), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array([16000])},
        "output",
        batch=1,
    ),
    Pair("pytorch", "image_classification_torchscript", {"image": _PIXELS}, "probabilities", file="model.pt"),
    Pair("pytorch", "image_classification_exported", {"image": _PIXELS}, "OUTPUT__0", file="model.pt2"),
    Pair("pytorch", "image_classification_eager", {"image": _PIXELS}, "probabilities", file="model.py"),
    Pair("pytorch", "sentence_embedding_exported", _SENTENCE, "OUTPUT__0", file="model.pt2"),
    Pair("pytorch", "face_landmarks", {"image": _zeros(3, 48, 48)}, "correction", file="model.py"),
    Pair("tensorflow", "image_classification_savedmodel", {"image": _PIXELS}, "probabilities", file="model.savedmodel"),
    Pair("tensorflow", "pitch_detection", {"input_2": _SOUND}, "note", file="model.savedmodel"),
)


def run(settings: Settings, report: Report) -> None:
    pairs = [pair for pair in PAIRS if _is_chosen(pair, settings.models) and _is_installed(pair)]
    if not pairs:
        raise SystemExit(f"nothing to measure; --models can name {', '.join(pair.name for pair in PAIRS)}")
    for number, order in enumerate(rounds(settings, report, pairs)):
        for pair in order:
            _measure(pair, settings, report, backwards=number % 2 == 1)
    for pair in pairs:
        served, two, loop, two_loops, alone, loop_alone = map(pair.name.__add__, _QUANTITIES)
        report.ratio(f"{pair.name}: served / loop", served, loop, at_least(0.95))
        report.ratio(f"{pair.name}: served / loop{_PROCESSOR}", served + _PROCESSOR, loop + _PROCESSOR)
        report.difference(f"{pair.name}: alone, served - loop", alone, loop_alone, at_most(0.3))
        report.ratio(f"{pair.name}: {INSTANCES} instances / one", two, served, at_least(1.7))
        report.ratio(f"{pair.name}: {INSTANCES} loops / one", two_loops, loop)


def _is_chosen(pair: Pair, models: tuple[str, ...]) -> bool:
    return not models or not {pair.backend, pair.example, pair.name}.isdisjoint(models)


def _is_installed(pair: Pair) -> bool:
    installed = find_spec(MODULES[pair.backend]) is not None
    if not installed:
        print(f"  not measured, as {MODULES[pair.backend]} is not installed: {pair.name}")
    return installed


def _measure(pair: Pair, settings: Settings, report: Report, *, backwards: bool) -> None:
    """One round of one pair, on a server that has nothing else to do."""
    one, two = Call("one", pair.inputs, pair.output), Call("two", pair.inputs, pair.output)
    with repository() as models:
        for call, instances in ((one, 1), (two, INSTANCES)):
            _add(models, pair, call.model, instances)
        batch = {name: np.repeat(array, pair.batch, 0) for name, array in pair.inputs.items()}
        loop = partial(framework_loop.in_own_process, pair.backend, _file(pair), pair.output)
        tried = loop(pair.inputs, _WARM_UP_S)
        seconds = max(settings.seconds, _ROWS * tried.p50_ms * 1e-3)
        with servers.trivet(models.path) as server:
            for call in (one, two):
                call.verify(server, tried.answer)
                wrk(server, call, IN_FLIGHT, _WARM_UP_S)
            measurements: tuple[Callable[[], tuple[float, float]], ...] = (
                lambda: _rate(checked(wrk, server, one, IN_FLIGHT, seconds)),
                lambda: _rate(checked(wrk, server, two, IN_FLIGHT, seconds)),
                lambda: _rate(loop(batch, settings.seconds), pair.batch),
                lambda: _rate(loop(batch, settings.seconds, loops=INSTANCES), pair.batch),
                lambda: (checked(wrk, server, one, 1, settings.seconds).p50_ms, 0.0),
                lambda: (loop(pair.inputs, settings.seconds).p50_ms, 0.0),
            )
            for quantity, measure in list(zip(_QUANTITIES, measurements, strict=True))[:: -1 if backwards else 1]:
                value, processor_us = report.quietly(measure)
                report.add(pair.name + quantity, value, "ms" if quantity.endswith("p50") else "rows/s")
                if quantity in (_SERVED, _LOOP):
                    report.add(pair.name + quantity + _PROCESSOR, processor_us, "µs/row")


def _rate(measured: Load | framework_loop.Measured, rows: int = 1) -> tuple[float, float]:
    """Rows a second, and the processor time of one in µs."""
    processor_us = measured.server_us if isinstance(measured, Load) else measured.processor_us
    return measured.rate * rows, processor_us / rows


def _file(pair: Pair) -> Path:
    """What the loop loads."""
    return existing(EXAMPLES / pair.example / "1" / pair.file)


def _add(models: Repository, pair: Pair, name: str, instances: int) -> None:
    """The example under another name, with one thread for each of its instances."""
    example = existing(EXAMPLES / pair.example)
    config = ModelConfig()
    if (written := example / "config.pbtxt").exists():
        text_format.Parse(written.read_text(), config)
    config.ClearField("name")
    config.ClearField("instance_group")
    config.backend = pair.backend
    config.instance_group.add(count=instances, kind=ModelInstanceGroup.KIND_CPU)
    for parameter in THREADS[pair.backend]:
        config.parameters[parameter].string_value = "1"
    if pair.batch > 1:
        config.max_batch_size = pair.batch
        config.dynamic_batching.SetInParent()
    folder = models.path / name
    folder.mkdir()
    for entry in example.iterdir():
        if entry != written:
            (folder / entry.name).symlink_to(entry)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
