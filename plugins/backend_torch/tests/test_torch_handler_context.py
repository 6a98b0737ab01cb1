"""What handlers of TorchServe ask and tell through ``context`` and the modules of ``ts``."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_handlers import Create, answers, execute, files, request
from trivet.backend import InstanceContext
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.metrics import MetricRegistry
from trivet_backend_torch.handlers.folder import enter
from trivet_backend_torch.ts.handler_utils.micro_batching import MicroBatching


def asked(text: bytes, **parameters: Any) -> InferenceRequest:
    made = request(text)
    made.parameters = parameters
    return made


def handler(code: str) -> dict[str, Any]:
    return files(**{"handler.py": code})


STATUSES = """
def handle(data, context):
    for index, row in enumerate(data or ()):
        code = int(row["data"])
        if code != 200:
            context.set_response_status(code=code, phrase="Not Like This", idx=index)
        context.set_response_content_type(index, "text/plain")
        context.set_response_header(index, "x-row", str(index))
    return [f"answer {index}" for index in range(len(data or ()))]
"""


def test_a_status_fails_the_request_that_it_is_for(context: Any, create: Create) -> None:
    made = create(context(handler(STATUSES)))
    good, bad, broken = execute(made, request(b"200"), request(b"422"), request(b"503"))
    assert good.outputs[0].numpy().tolist() == [[b"answer 0"]]
    assert isinstance(bad.error, InvalidArgumentError)
    assert str(bad.error) == "answer 1 (status 422, Not Like This, model 'm' version 1)"
    assert isinstance(broken.error, InternalError)
    (again,) = execute(made, request(b"200"))
    assert again.error is None


def test_headers_of_an_answer_are_parameters_of_the_response(context: Any, create: Create) -> None:
    first, second = execute(create(context(handler(STATUSES))), request(b"200"), request(b"200"))
    assert first.parameters == {"content-type": "text/plain", "x-row": "0"}
    assert second.parameters == {"content-type": "text/plain", "x-row": "1"}


def test_parameters_and_the_sequence_of_a_request_are_its_headers(context: Any, create: Create) -> None:
    code = """
def handle(data, context):
    return [
        [
            context.get_sequence_id(index),
            context.get_request_header(index, "tenant"),
            context.request_processor[index].get_request_property("ts_request_sequence_end"),
            context.get_request_header(index, "X-Tenant"),
        ]
        for index in range(len(data or ()))
    ]
"""
    made = create(context(handler(code)))
    sequence = asked(b"a", **{"tenant": 7, "x-tenant": "forwarded"})
    sequence.correlation_id, sequence.sequence_end = "s", True
    first, second = execute(made, sequence, request(b"b"))
    assert answers(first) == [["s", "7", "true", "forwarded"]]
    assert answers(second) == [[None, None, None, None]]


def test_requests_of_a_batch_have_ids_of_their_own(context: Any, create: Create) -> None:
    code = """
def handle(data, context):
    return [[context.get_request_id(index), len(data)] for index in range(len(data or ()))]
"""
    made = create(context(handler(code)))
    responses = execute(made, request(b"a", id="one"), request(b"b"), request(b"c", id="one"), request(b"d", b"e"))
    (one,), (nameless,), (again,), two_rows = (answers(response) for response in responses)
    assert one == ["one", 5]
    assert two_rows[0] == two_rows[1]
    assert len({id for id, _ in (one, nameless, again, two_rows[0]) if id}) == 4


JSON = """
def handle(data, context):
    given = [row["data"] for row in data or ()]
    return [[type(one).__name__, one if isinstance(one, (dict, str)) else None] for one in given]
"""


@pytest.mark.parametrize(
    ("content_type", "answer"),
    [
        ("application/json", ["dict", {"a": 1}]),
        ("text/plain", ["str", '{"a": 1}']),
        ("application/octet-stream", ["bytearray", None]),
        ("", ["bytearray", None]),
    ],
)
def test_inputs_are_decoded_as_their_content_type_says(
    content_type: str, answer: list[Any], context: Any, create: Create
) -> None:
    config = f'parameters {{ key: "CONTENT_TYPE" value {{ string_value: "{content_type}" }} }}'
    for_all = create(context(handler(JSON), config))
    assert answers(execute(for_all, request(b'{"a": 1}'))[0]) == [answer]
    each = create(context(handler(JSON), name="each"))
    other, this = execute(each, request(b'{"a": 1}'), asked(b'{"a": 1}', content_type=content_type))
    assert answers(other) == [["bytearray", None]]
    assert answers(this) == [answer]


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000], ids=["no JSON", "no UTF-8", "too deep"])
def test_what_is_not_of_its_content_type_stays_as_it_was_posted(text: bytes, context: Any, create: Create) -> None:
    made = create(context(handler(JSON)))
    assert answers(execute(made, asked(text, content_type="application/json"))[0]) == [["bytearray", None]]


def test_a_handler_that_expects_decoded_json_says_how_it_gets_that(context: Any, create: Create) -> None:
    made = create(context(handler("def handle(data, context):\n    return [row['data']['a'] for row in data or ()]\n")))
    with pytest.raises(InternalError, match=r"bytearray indices .*; if the handler expects decoded JSON, give the req"):
        execute(made, request(b'{"a": 1}'))
    assert answers(execute(made, asked(b'{"a": 1}', content_type="application/json"))[0]) == [1]


METRICS = """
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.service import emit_metrics
from ts.torch_handler.base_handler import BaseHandler

class Measured(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.rows = context.metrics.add_metric_to_cache(
            metric_name="Rows", unit="count", dimension_names=["Kind"], metric_type=MetricTypes.COUNTER
        )

    def preprocess(self, data):
        metrics = self.context.metrics
        self.rows.add_or_update(value=len(data), dimension_values=["text"])
        self.rows.add_or_update(value=1, dimension_values=[])
        metrics.get_metric("Rows", MetricTypes.COUNTER).add_or_update(1, ["more"])
        metrics.get_metric("OfTheServer", MetricTypes.GAUGE).add_or_update(2.5, ["x"])
        metrics.add_size("Size", len(data[0]["data"]), None, "kB")
        metrics.add_percent("Share", 50, dimensions=[Dimension("of", 3)], metric_type=MetricTypes.HISTOGRAM)
        metrics.add_counter(name="Calls", value=1, idx=None, dimensions=[])
        metrics.add_error("Errors", 1)
        metrics.add_counter("Size", 1)
        metrics.add_time("no name", 1)
        metrics.add_time("Text", "long")
        emit_metrics(metrics.store)
        return data

    def inference(self, data):
        return [1 for row in data]

    def postprocess(self, data):
        return data
"""


def test_what_a_handler_measures_is_a_metric_of_the_server(
    context: Any, backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry = MetricRegistry()
    made_context = replace(context(handler(METRICS)), metrics=registry)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    made = model.create_instance(InstanceContext("m_0_0", "CPU"))
    for _ in range(2):
        assert answers(execute(made, request(b"ab", b"c"))[0]) == [1, 1]
    read = {
        (family.name, sample.labels): sample
        for family in registry.read()
        for sample in family.samples
        if family.name != "HandlerTime"
    }
    level, error, named = ("Level", "Model"), ("Level", "Error"), ("ModelName", "m")
    assert {key: sample.value for key, sample in read.items()} == {
        ("Rows", (("Kind", "text"),)): 4,
        ("Rows", (("Kind", "more"),)): 2,
        ("OfTheServer", (("dimension_1", "x"),)): 2.5,
        ("Size", (level, named)): 2,
        ("Share", (level, named, ("of", "3"))): 100,
        ("Calls", (level, named)): 2,
        ("Errors", (error, named)): 2,
    }
    refused = [record.getMessage() for record in caplog.records if "is not kept" in record.message]
    assert [message.split("metric '")[1].partition("'")[0] for message in refused] == [
        "Rows",
        "Size",
        "no name",
        "Text",
    ]
    made.close()
    model.close()
    assert registry.read() == []


def test_the_metrics_of_a_handler_that_fails_are_gone(context: Any, backend: Any) -> None:
    registry = MetricRegistry()
    code = "def handle(data, context):\n    context.metrics.add_counter('Tries', 1)\n    raise ValueError('never')\n"
    made_context = replace(context(handler(code)), metrics=registry)
    backend.auto_complete(made_context)
    model = backend.load(made_context)
    with pytest.raises(InvalidArgumentError, match=r"its handler 'handler\.py' raised ValueError: never"):
        model.create_instance(InstanceContext("m_0_0", "CPU"))
    model.close()
    assert registry.read() == []


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


def test_a_handler_works_in_the_folder_of_its_archive(context: Any, backend: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as probe:
        refused = probe.submit(enter, tmp_path).result()
    if refused is not None:
        pytest.skip(f"this system gives no thread a working directory of its own: {refused}")
    made_context = context({**handler(RELATIVE), "words.txt": "a few"})
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
