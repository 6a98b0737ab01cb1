"""What handlers of TorchServe ask and tell through ``context`` and the modules of ``ts``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_torch_handlers import Create, answers, execute, files, request
from trivet.backend import InstanceContext
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.metrics import MetricRegistry


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
