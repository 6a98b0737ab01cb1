"""What handlers of TorchServe import from ``ts``, and where they work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_handler_context import asked, handler
from test_torch_handlers import Create, answers, execute, files, request
from trivet.backend import InstanceContext
from trivet.errors import InternalError, InvalidArgumentError
from trivet.metrics import MetricRegistry
from trivet_backend_torch.handlers.folder import enter
from trivet_backend_torch.ts.handler_utils.micro_batching import MicroBatching

TIMED = """
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler

class Timed(BaseHandler):
    @timed
    def preprocess(self, data):
        return data

    def inference(self, data):
        return data

    def postprocess(self, data):
        return [[self.preprocess.__name__] for _ in data]
"""


@pytest.mark.parametrize("profile", [True, False])
def test_methods_are_timed_where_the_file_of_the_archive_says_so(profile: bool, context: Any, backend: Any) -> None:
    registry = MetricRegistry()
    settings = {"model-config.yaml": f"handler:\n  profile: {str(profile).lower()}\n"}
    made_context = replace(context({**handler(TIMED), **settings}), metrics=registry)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    made = model.create_instance(InstanceContext("m_0_0", "CPU"))
    assert answers(execute(made, request(b"a"))[0]) == [["preprocess"]]
    names = {family.name for family in registry.read()}
    assert names == ({"HandlerTime", "ts_handler_preprocess"} if profile else {"HandlerTime"})
    made.close()
    model.close()


MICRO = """
import threading
from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler

class Parts(BaseHandler):
    def __init__(self):
        self.handle = MicroBatching(self)

    def initialize(self, context):
        super().initialize(context)
        self.handle.micro_batch_size = context.model_yaml_config["micro_batching"]["micro_batch_size"]
        self.handle.parallelism = {"preprocess": 2}

    def preprocess(self, data):
        return [(bytes(row["data"]).decode(), len(data), self.handle.get_micro_batch_idx()) for row in data]

    def inference(self, data):
        if any(text == "bad" for text, *_ in data):
            raise ValueError("no good")
        return data

    def postprocess(self, data):
        return [list(row) for row in data]
"""


def test_micro_batches_are_answered_in_their_order(context: Any, create: Create) -> None:
    settings = {"model-config.yaml": "micro_batching:\n  micro_batch_size: 2\n"}
    made = create(context({**handler(MICRO), **settings}))
    (response,) = execute(made, request(b"a", b"b", b"c", b"d", b"e"))
    assert answers(response) == [["a", 2, 0], ["b", 2, 0], ["c", 2, 1], ["d", 2, 1], ["e", 1, 2]]
    with pytest.raises(InternalError, match="no good"):
        execute(made, request(b"a", b"b", b"bad"))
    assert answers(execute(made, request(b"f"))[0]) == [["f", 1, 0]]


def test_the_threads_of_micro_batches_end_with_the_model(context: Any, backend: Any) -> None:
    made_context = context({**handler(MICRO), "model-config.yaml": "micro_batching:\n  micro_batch_size: 1\n"})
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    made = model.create_instance(InstanceContext("m_0_0", "CPU"))
    execute(made, request(b"a", b"b"))
    running = [thread for thread in threading.enumerate() if thread.name.startswith("micro-batching-")]
    assert len(running) >= 3
    made.close()
    model.close()
    assert not any(thread.is_alive() for thread in running)


@pytest.mark.parametrize("parallelism", [{"inference": 0}, {"postprocessing": 1}])
def test_micro_batching_needs_threads_for_steps_that_there_are(parallelism: dict[str, int]) -> None:
    made = MicroBatching(object())
    with pytest.raises(ValueError, match="expected 1 or more for preprocess, inference, postprocess"):
        made.parallelism = parallelism
    assert made.parallelism == {"preprocess": 1, "inference": 1, "postprocess": 1}


EXPLAINS = """
from ts.torch_handler.base_handler import BaseHandler

class Explains(BaseHandler):
    def preprocess(self, data):
        return [bytes(row["data"]).decode() for row in data]

    def inference(self, data):
        return data

    def postprocess(self, data):
        return data

    def get_insights(self, data, text, target):
        return [f"because of {one}" for one in data]

    def describe_handle(self):
        return {"explains": True}
"""


def test_a_request_may_ask_for_an_explanation_or_a_description(context: Any, create: Create) -> None:
    made = create(context(handler(EXPLAINS)))
    plain, explained, described = execute(made, request(b"a"), asked(b"b", explain=True), asked(b"c", describe="True"))
    assert plain.outputs[0].numpy().tolist() == [[b"a"]]
    assert explained.outputs[0].numpy().tolist() == [[b"because of b"]]
    assert answers(described) == [{"explains": True}]


def test_a_handler_that_explains_nothing(context: Any, create: Create) -> None:
    with pytest.raises(InvalidArgumentError, match="SumHandler has no get_insights"):
        execute(create(context(files())), asked(b"[1]", explain="True"))


RELATIVE = """
import os.path

with open("words.txt") as file:
    WORDS = file.read()

def handle(data, context):
    return [WORDS if os.path.exists("words.txt") else "" for row in data or ()]
"""


@pytest.mark.parametrize("relative", [False, True])
def test_a_handler_works_in_the_folder_of_its_archive(
    relative: bool, context: Any, backend: Any, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as probe:
        refused = probe.submit(enter, tmp_path).result()
    if refused is not None:
        pytest.skip(f"this system gives no thread a working directory of its own: {refused}")
    made_context = context({**handler(RELATIVE), "words.txt": "a few"})
    if relative:
        made_context = replace(made_context, version_path=Path(os.path.relpath(made_context.version_path)))
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    before = Path.cwd()
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(model.create_instance, InstanceContext("m_0_0", "CPU")).result()
        (response,) = thread.submit(execute, made, request(b"a")).result()
        assert response.outputs[0].numpy().tolist() == [[b"a few"]]
        thread.submit(made.close).result()
    model.close()
    assert Path.cwd() == before


def test_a_handler_that_cannot_is_told_how_to_find_its_files(context: Any, create: Create) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"'words.txt' is in the archive, .*system_properties\['model_dir'\]"
    ):
        create(context({**handler(RELATIVE), "words.txt": "a few"}))


TEXT = """
from ts.torch_handler.text_handler import TextHandler

class Cleaner(TextHandler):
    def preprocess(self, data):
        return [self._remove_html_tags(bytes(row["data"]).decode()) for row in data]

    def inference(self, data):
        return [self._remove_punctuation(self._remove_accented_characters(text)) for text in data]

    def postprocess(self, data):
        return [[text] for text in data]
"""


def test_a_handler_of_text(context: Any, create: Create) -> None:
    made = create(context(handler(TEXT)))
    (response,) = execute(made, request("<b>Caf\u00e9</b> &amp; more, s'il vous pla\u00eet!".encode()))
    assert answers(response) == [["Cafe  more sil vous plait"]]


def test_a_vocabulary_of_torchtext_is_refused(context: Any, create: Create) -> None:
    with pytest.raises(InvalidArgumentError, match=r"the archive has a vocabulary of torchtext, 'source_vocab\.pt'"):
        create(context({**handler(TEXT), "source_vocab.pt": "x"}))


def test_an_entry_point_may_be_anything_that_can_be_called(context: Any, create: Create) -> None:
    code = """
class Service:
    started = False

    def serve(self, data, context):
        if data is None:
            self.started = True
            return None
        return [str(self.started) for row in data]

handle = Service().serve
"""
    (response,) = execute(create(context(handler(code))), request(b"a"))
    assert response.outputs[0].numpy().tolist() == [[b"True"]]


def test_a_network_is_compiled_as_the_archive_says(context: Any, create: Create) -> None:
    code = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Compiled(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([[1.0, 2.0] for row in data])

    def postprocess(self, data):
        return [[type(self.model).__name__, value] for value in data.tolist()]
"""
    for number, (pt2, name) in enumerate(
        {
            "{compile: {enable: true, backend: eager}}": "OptimizedModule",
            "{compile: {enable: false, backend: eager}}": "Sums",
            "eager": "OptimizedModule",
            "{backend: eager, dynamic: true}": "OptimizedModule",
            "no-such-backend": "Sums",
        }.items()
    ):
        made = create(context({**handler(code), "model-config.yaml": f"pt2: {pt2}\n"}, name=f"m{number}"))
        assert answers(execute(made, request(b"a"))[0]) == [[name, 3]]
    torch.compiler.reset()


def test_a_description_of_what_the_modules_of_torchserve_are_not_there(context: Any, create: Create) -> None:
    message = "needs the module 'ts.metrics.system_metrics'; which is TorchServe's, and of its modules there are"
    with pytest.raises(InvalidArgumentError, match=message):
        create(context(handler("import ts.metrics.system_metrics as system_metrics\n")))
    manifest = json.loads(files()["MAR-INF/MANIFEST.json"])
    manifest["model"]["requirementsFile"] = "requirements.txt"
    with pytest.raises(
        InvalidArgumentError, match=r"'no_such_package'; install what 'requirements.txt' of the archive"
    ):
        create(
            context({**handler("import no_such_package\n"), "MAR-INF/MANIFEST.json": json.dumps(manifest)}, name="n")
        )


def test_a_pickle_that_names_a_class_of_the_archive(context: Any, create: Create) -> None:
    code = """
import pickle

def handle(data, context):
    pickle._loads(b"cmodel\\nSums\\n.")
"""
    with pytest.raises(InvalidArgumentError, match="needs the module 'model'; which is in the archive, where a pickle"):
        create(context(handler(code)))


def test_the_log_says_where_a_handler_failed(context: Any, create: Create, caplog: pytest.LogCaptureFixture) -> None:
    code = """
def handle(data, context):
    for row in data or ():
        if row["data"] == b"bad":
            raise KeyError("nothing")
    return data and ["good"] * len(data)
"""
    made = create(context(handler(code)))
    execute(made, request(b"good"), request(b"bad"))
    (record,) = (record for record in caplog.records if record.name == "trivet.model.m")
    assert record.getMessage() == "the handler of model 'm' version 1 failed"
    assert 'raise KeyError("nothing")' in str(caplog.text)
    with pytest.raises(InvalidArgumentError, match="ZeroDivisionError"):
        create(context(handler("1 / 0\n"), name="other"))
    assert "1 / 0" in caplog.text


def test_an_installed_torchserve_gives_the_modules_that_are_not_here(tmp_path: Path) -> None:
    installed = {
        "ts/__init__.py": "raise RuntimeError('its own')",
        "ts/handler_utils/__init__.py": "raise RuntimeError('its own')",
        "ts/handler_utils/timer.py": "raise RuntimeError('its own')",
        "ts/handler_utils/streamer.py": "from .timer import timed",
    }
    for name, text in installed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = """
from trivet_backend_torch.handlers.interface import provide
from trivet_backend_torch.ts.handler_utils.timer import timed
provide()
import ts.handler_utils.streamer
from ts.torch_handler.base_handler import BaseHandler
assert ts.handler_utils.streamer.timed is timed
assert BaseHandler.__module__ == "trivet_backend_torch.ts.torch_handler.base_handler"
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
