"""Each function uses ``pb_utils`` in one way and returns what came of it, as a list of texts."""

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


def request(model="double", outputs=("Y",), **fields):
    x = fields.pop("x", [1, 2])
    inputs = fields.pop("inputs", [pb_utils.Tensor("X", np.array(x, np.float32))])
    return pb_utils.InferenceRequest(model_name=model, requested_output_names=list(outputs), inputs=inputs, **fields)


def stream(n):
    return request("stream", ["I"], inputs=[pb_utils.Tensor("N", np.array([n], np.int32))])


def show(response):
    if response.has_error():
        return f"error {response.error().message()}"
    return str([f"{tensor.name()} {tensor.as_numpy().tolist()}" for tensor in response.output_tensors()])


def attempt(function):
    try:
        return show_any(function())
    except Exception as error:  # noqa: BLE001 - what it is, is the answer
        return f"raised {type(error).__name__}: {error}"


def show_any(value):
    return show(value) if hasattr(value, "output_tensors") else repr(value)


# --- one response


def exec_():
    return [show(request().exec())]


def exec_twice():
    asked = request()
    return [show(asked.exec()), show(asked.exec())]


def exec_all_outputs():
    return [show(request(outputs=[]).exec())]


def exec_two_outputs():
    return [show(request(outputs=["Z", "Y"]).exec())]


def exec_error():
    response = request(x=[-1]).exec()
    return [show(response), str(response.has_error()), str(len(response.output_tensors()))]


def exec_error_code():
    return [str(int(request(x=[-1]).exec().error().code()))]


def exec_unknown_model():
    return [attempt(request("nobody").exec)]


def exec_unknown_version():
    return [attempt(request(model_version=7).exec)]


def exec_version():
    return [attempt(request(model_version=1).exec)]


def exec_unknown_input():
    return [attempt(request(inputs=[pb_utils.Tensor("W", np.zeros(1, np.float32))]).exec)]


def exec_missing_input():
    return [attempt(request(inputs=[]).exec)]


def exec_wrong_datatype():
    return [attempt(request(inputs=[pb_utils.Tensor("X", np.zeros(1, np.int32))]).exec)]


def exec_wrong_shape():
    return [attempt(request(inputs=[pb_utils.Tensor("X", np.zeros((1, 1), np.float32))]).exec)]


def exec_unknown_output():
    return [attempt(request(outputs=["Q"]).exec)]


def exec_decoupled_model_without_the_argument():
    return [attempt(stream(2).exec)]


def exec_from_itself():
    inputs = [pb_utils.Tensor("CASE", np.array([b"exec_"], dtype=object))]
    return [show(request("caller", ["RESULT"], inputs=inputs).exec())]


def fields_default():
    return [show(request("fields", ["FIELDS"]).exec())]


def fields_all():
    asked = request(
        "fields",
        ["FIELDS"],
        request_id="r7",
        correlation_id=5,
        model_version=1,
        flags=pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START | pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END,
        timeout=1000000,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        parameters={"text": "a", "number": 3, "yes": True},
    )
    return [show(asked.exec())]


def fields_text_correlation():
    return [show(request("fields", ["FIELDS"], correlation_id="speaker").exec())]


def fields_of_a_made_request():
    made = request(request_id="r", correlation_id=3, flags=1, timeout=5, parameters={"a": 1})
    return [
        made.request_id(),
        repr(made.correlation_id()),
        str(sorted(made.requested_output_names())),
        str(made.flags()),
        str(made.timeout()),
        made.parameters(),
        repr(made.trace().get_context()),
    ]


def release_flags_of_a_made_request():
    return [
        attempt(lambda: request().set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)),
        attempt(lambda: request().set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)),
    ]


async def async_exec():
    return [show(await request().async_exec())]


async def async_exec_many():
    asked = [request(x=[i]) for i in range(20)]
    return [show(response) for response in await asyncio.gather(*(one.async_exec() for one in asked))]


async def async_exec_unknown_model():
    return [show(await request("nobody").async_exec())]


async def async_exec_decoupled_model_without_the_argument():
    return [show(await stream(2).async_exec())]


# --- many responses


def decoupled():
    return [show(response) for response in stream(3).exec(decoupled=True)]


def decoupled_none():
    return [show(response) for response in stream(0).exec(decoupled=True)]


def decoupled_last_with_the_flag():
    responses = [show(response) for response in stream(150).exec(decoupled=True)]
    return [str(len(responses)), responses[0], responses[-1]]


def decoupled_error():
    return [show(response) for response in stream(-3).exec(decoupled=True)]


def decoupled_of_a_model_that_is_not():
    return [show(response) for response in request().exec(decoupled=True)]


def decoupled_of_an_error():
    return [show(response) for response in request(x=[-1]).exec(decoupled=True)]


def decoupled_unknown_model():
    return [show(response) for response in request("nobody").exec(decoupled=True)]


def decoupled_unknown_input():
    asked = request("stream", ["I"], inputs=[pb_utils.Tensor("M", np.zeros(1, np.int32))])
    return [show(response) for response in asked.exec(decoupled=True)]


def decoupled_step_by_step():
    responses = stream(1).exec(decoupled=True)
    found = [type(responses).__name__, str(iter(responses) is responses)]
    found += [attempt(lambda: next(responses)) for _ in range(4)]
    return found


def decoupled_again():
    responses = stream(2).exec(decoupled=True)
    return [str(len(list(responses))), str(len(list(responses)))]


def decoupled_in_two_parts():
    responses = stream(4).exec(decoupled=True)
    first = [show(response) for _, response in zip(range(2), responses, strict=False)]
    return [*first, "then", *[show(response) for response in responses]]


def decoupled_abandoned():
    responses = stream(20).exec(decoupled=True)
    first = show(next(responses))
    del responses
    return [first, show(request().exec())]


def decoupled_out_of_order():
    many = [stream(n).exec(decoupled=True) for n in (150, 2, 120)]
    return [str([len(list(responses)) for responses in reversed(many)])]


async def async_decoupled():
    return [show(response) for response in await stream(3).async_exec(decoupled=True)]


async def async_decoupled_many():
    many = await asyncio.gather(*(stream(n).async_exec(decoupled=True) for n in range(4)))
    return [str([show(response) for response in responses]) for responses in many]


# --- the server


def ready():
    return [
        attempt(lambda: pb_utils.is_model_ready("double")),
        attempt(lambda: pb_utils.is_model_ready(model_name="double", model_version="1")),
        attempt(lambda: pb_utils.is_model_ready("double", "2")),
        attempt(lambda: pb_utils.is_model_ready("nobody")),
        attempt(lambda: pb_utils.is_model_ready("")),
        attempt(lambda: pb_utils.is_model_ready("caller")),
    ]


# --- metrics


KEPT = []
"""Metric families: a metric whose family was freed cannot be used any more, and may take the server down."""


def family(name, kind="COUNTER", description="Said by a test"):
    KEPT.append(pb_utils.MetricFamily(name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind)))
    return KEPT[-1]


def gauge():
    metric = family("bls_gauge", "GAUGE").Metric(labels={})
    found = [attempt(metric.value)]
    metric.increment(2)
    metric.increment(-5)
    found += [attempt(metric.value)]
    metric.set(7.25)
    return [*found, attempt(metric.value)]


def buckets():
    histograms = family("bls_buckets", "HISTOGRAM")
    counters = family("bls_no_buckets")
    return [
        attempt(lambda: histograms.Metric(labels={"a": "1"})),
        attempt(lambda: type(histograms.Metric(labels={"a": "2"}, buckets=[])).__name__),
        attempt(lambda: histograms.Metric(labels={"a": "5"}, buckets=5)),
        attempt(lambda: counters.Metric(labels={"a": "1"}, buckets=[1, 2])),
        attempt(lambda: type(counters.Metric(labels={"a": "1"}, buckets=None)).__name__),
    ]


def labels():
    counters = family("bls_labels")
    return [
        attempt(lambda: counters.Metric(labels=5)),
        attempt(lambda: type(counters.Metric(labels=None)).__name__),
        attempt(lambda: type(counters.Metric()).__name__),
        attempt(lambda: type(counters.Metric(labels={"a": "é"})).__name__),
    ]


def same_labels():
    counters = family("bls_same_labels")
    one, two = counters.Metric(labels={"a": "1", "b": "2"}), counters.Metric(labels={"b": "2", "a": "1"})
    other = counters.Metric(labels={"a": "2"})
    one.increment(3)
    two.increment(4)
    return [repr(one.value()), repr(two.value()), repr(other.value())]


def same_family():
    one, two = family("bls_same_family"), family("bls_same_family")
    first, second = one.Metric(labels={"a": "1"}), two.Metric(labels={"a": "1"})
    first.increment(3)
    return [repr(second.value())]


def family_of_another_description():
    first = family("bls_described")
    return [type(first).__name__, attempt(lambda: type(family("bls_described", description="Otherwise")).__name__)]


def family_arguments():
    return [
        type(pb_utils.MetricFamily(name="bls_arguments", description="", kind=pb_utils.MetricFamily.GAUGE)).__name__,
        attempt(lambda: type(pb_utils.MetricFamily(name="bls_number", description="d", kind=1)).__name__).split(":")[0],
        type(pb_utils.MetricFamily("bls_place", "d", pb_utils.MetricFamily.COUNTER)).__name__,
        str(int(pb_utils.MetricFamily.COUNTER)),
        str(int(pb_utils.MetricFamily.GAUGE)),
        str(int(pb_utils.MetricFamily.HISTOGRAM)),
    ]


def metric_values():
    metric = family("bls_values", "GAUGE").Metric(labels={})
    found = [
        attempt(lambda value=value: (metric.set(value), metric.value())[1])
        for value in (1, 1e300, float("inf"), float("nan"), True)
    ]
    found += [attempt(lambda: metric.set("1")).split("\n")[0].split(":")[0]]
    return found
