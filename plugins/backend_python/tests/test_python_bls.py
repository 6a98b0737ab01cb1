"""Models that call other models, served by an engine."""

from __future__ import annotations

import asyncio
import shutil
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from trivet.errors import InternalError, InvalidArgumentError, RequestCancelledError
from trivet.inference import InferenceRequest
from trivet.lifecycle import ModelState
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_python import plugin
from trivet_backend_python.waits import MOST_WAITING

pytestmark = pytest.mark.anyio

MODELS = Path(__file__).parents[3] / "tests" / "differential" / "models_bls"

CONFIG = """
    backend: "python"
    input [{ name: "X" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "Y" data_type: TYPE_FP32 dims: [-1] }]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"

# What a test shares with the models that it writes: one process, one interpreter.
SHARED: dict[str, threading.Event | list[object]] = {}


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, body: str, config: str = "", *, extra: str = "", is_async: bool = False) -> None:
        """A model whose ``execute`` has this body, which may use ``call(model, x)`` and ``answer(x)``."""
        source = f"""
import asyncio, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils
from {__name__} import SHARED

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def request(model, x, **fields):
    inputs = [pb_utils.Tensor("X", np.asarray(x, np.float32))]
    return pb_utils.InferenceRequest(model_name=model, requested_output_names=["Y"], inputs=inputs, **fields)

def values(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()

def answer(x):
    return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.asarray(x, np.float32))])

def given(request):
    return request.inputs()[0].as_numpy()

class TritonPythonModel:
    {"async " if is_async else ""}def execute(self, requests):
{textwrap.indent(textwrap.dedent(body), " " * 8)}
{textwrap.indent(textwrap.dedent(extra), " " * 4)}
"""
        folder = self.path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(source)
        (self.path / name / "config.pbtxt").write_text(CONFIG + config)

    def double(self) -> None:
        self.add("double", "return [answer(2 * given(r)) for r in requests]")

    def count(self, name: str = "count", config: str = "") -> None:
        """Answers with 0, 1, 2, ... as often as it is asked to, and notes how far it came."""
        self.add(
            name,
            """
            for r in requests:
                sender = r.get_response_sender()
                for i in range(int(given(r)[0])):
                    if sender.is_cancelled():
                        SHARED["cancelled"].set()
                        break
                    sender.send(answer([i]))
                    SHARED["sent"].append(i)
                    if i + 1 == SHARED.get("enough"):
                        SHARED["sent_enough"].set()
                sender.send(flags=FINAL)
            """,
            DECOUPLED + config,
        )


@pytest.fixture
def repository(tmp_path):
    SHARED.clear()
    SHARED.update(cancelled=threading.Event(), sent_enough=threading.Event(), sent=[])
    yield Repository(tmp_path)
    SHARED.clear()


def serve(repository, **options):
    options = {"model_control_mode": "explicit", "load_models": ["*"], **options}
    return running_engine(repository.path, registry=PluginRegistry.of(python=plugin), **options)


def request(model, *values, **fields):
    return InferenceRequest(model, {"X": Tensor.from_numpy("X", np.array(values, np.float32))}, **fields)


def unloaded(engine, name):
    """Set when that model is no more in memory."""
    gone = asyncio.Event()

    def watch(event):
        if event.name == name and event.state is ModelState.UNAVAILABLE:
            gone.set()

    engine.on_model_event.append(watch)
    return gone


async def infer(engine, model, *values):
    response = await asyncio.wait_for(engine.infer(request(model, *values)), 30)
    if response.error is not None:
        raise response.error
    return response.outputs[0].numpy().tolist()


class TestChains:
    async def test_many_callers_of_many_instances_in_three_levels(self, repository):
        repository.double()
        group = "instance_group [{ count: 3 }]"
        repository.add(
            "middle", 'return [answer(values(request("double", given(r)).exec()) + 1) for r in requests]', group
        )
        repository.add(
            "top",
            """
            responses = await asyncio.gather(*(request("middle", given(r)).async_exec() for r in requests))
            return [answer(values(response)) for response in responses]
            """,
            group,
            is_async=True,
        )
        async with serve(repository) as engine:
            results = await asyncio.gather(*(infer(engine, "top", i) for i in range(100)))
        assert results == [[2 * i + 1] for i in range(100)]

    async def test_a_model_that_calls_itself_with_one_instance(self, repository):
        repository.add("again", 'return [answer(values(request("again", given(r)).exec())) for r in requests]')
        async with serve(repository) as engine:
            with pytest.raises(InternalError, match=r"'again' calls itself: all of its 1 instances"):
                await infer(engine, "again", 1)

    async def test_a_model_that_calls_itself_with_two(self, repository):
        repository.add(
            "again",
            """
            x = given(requests[0])
            return [answer(values(request("again", x - 1).exec()) + 1 if x[0] > 0 else x)]
            """,
            "instance_group [{ count: 2 }]",
        )
        async with serve(repository) as engine:
            assert await infer(engine, "again", 1) == [1]
            with pytest.raises(InternalError, match=r"'again' calls itself: all of its 2 instances"):
                await infer(engine, "again", 2)

    async def test_a_trace_and_fields_are_handed_on(self, repository):
        shutil.copytree(MODELS / "fields", repository.path / "fields")
        repository.add(
            "asks",
            """
            asked = pb_utils.InferenceRequest(model_name="fields", requested_output_names=["FIELDS"], inputs=[],
                trace=requests[0].trace(), correlation_id="c", timeout=9, request_id="r", parameters={"a": 1.5})
            SHARED["seen"] = asked.exec().output_tensors()[0].as_numpy().tolist()
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            traced = request("asks", 0)
            traced.trace_context = "00-abc"
            await engine.infer(traced)
        seen = [text.decode() for text in SHARED["seen"]]
        assert "trace '00-abc'" in seen
        assert {"correlation 'c'", "timeout 9", "id 'r'", 'parameters {"a":1.5}'} < set(seen)


class TestDecoupled:
    async def test_a_slow_reader_holds_back_the_model_that_answers(self, repository):
        repository.count()
        repository.add(
            "slow",
            """
            responses = request("count", given(requests[0])).exec(decoupled=True)
            first = [values(next(responses))[0] for _ in range(3)]
            SHARED["sent_enough"].wait(30)
            time.sleep(0.05)  # for a model that is not held back
            SHARED["sent_meanwhile"] = len(SHARED["sent"])
            rest = [values(response)[0] for response in responses if response.output_tensors()]
            return [answer(first + rest)]
            """,
        )
        SHARED["enough"] = MOST_WAITING
        async with serve(repository) as engine:
            assert await infer(engine, "slow", 200) == list(range(200))
        # Three were taken.
        assert SHARED["sent_meanwhile"] <= MOST_WAITING + 3

    async def test_streams_of_one_instance_taken_in_any_order(self, repository):
        repository.count()
        repository.add(
            "backwards",
            """
            many = [request("count", [100 + i]).exec(decoupled=True) for i in range(4)]
            return [answer([len(list(responses)) for responses in reversed(many)])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "backwards", 0) == [104, 103, 102, 101]

    async def test_a_call_to_the_model_that_is_streaming(self, repository):
        repository.count()
        repository.add(
            "nested",
            """
            found = 0
            for response in request("count", [100]).exec(decoupled=True):
                found += len(list(request("count", [1]).exec(decoupled=True)))
            return [answer([found])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "nested", 0) == [2 * 101]

    async def test_async_iteration(self, repository):
        repository.count()
        repository.add(
            "sums",
            """
            async def total(n):
                found = 0
                async for response in await request("count", [n]).async_exec(decoupled=True):
                    found += sum(values(response)) if response.output_tensors() else 0
                return found
            return [answer(await asyncio.gather(*map(total, (100, 2, 50))))]
            """,
            is_async=True,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "sums", 0) == [4950, 1, 1225]

    @pytest.mark.parametrize("end", ["del responses", "responses.close()", "responses.cancel()", "asked.cancel()"])
    async def test_what_is_not_read_is_cancelled(self, repository, end):
        repository.count()
        repository.add(
            "first",
            f"""
            asked = request("count", [1000000])
            responses = asked.exec(decoupled=True)
            first = values(next(responses))
            {end}
            return [answer(first)]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "first", 0) == [0]
            await asyncio.to_thread(SHARED["cancelled"].wait, 30)
            assert SHARED["cancelled"].is_set()

    async def test_a_cancelled_stream_ends_with_an_error(self, repository):
        repository.count()
        repository.add(
            "cancels",
            """
            responses = request("count", [1000000]).exec(decoupled=True)
            next(responses)
            responses.cancel()
            *_, last = responses
            SHARED["code"] = last.error().code()
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "cancels", 0)
        assert SHARED["code"].name == "CANCELLED"


class TestCancellation:
    @pytest.mark.parametrize("kind", ["exec", "async_exec", "iterator"])
    async def test_a_client_that_goes_away_cancels_what_was_made_for_it(self, repository, kind):
        repository.add(
            "waits",
            """
            SHARED["entered"].set()
            while not requests[0].is_cancelled():
                SHARED["poll"].wait(0.001)
            SHARED["cancelled"].set()
            return [answer([0])]
            """,
        )
        call = {
            "exec": 'request("waits", [1]).exec()',
            "async_exec": 'await request("waits", [1]).async_exec()',
            "iterator": 'next(request("waits", [1]).exec(decoupled=True))',
        }[kind]
        repository.add(
            "parent",
            f"""
            response = {call}
            SHARED["code"] = response.error().code().name
            SHARED["ended"].set()
            return [answer([0])]
            """,
            is_async=kind == "async_exec",
        )
        SHARED.update(entered=threading.Event(), poll=threading.Event(), ended=threading.Event())
        async with serve(repository) as engine:
            asked = request("parent", 1)
            task = asyncio.ensure_future(engine.infer(asked))
            await asyncio.to_thread(SHARED["entered"].wait, 30)
            engine.cancel(asked)
            assert isinstance((await task).error, RequestCancelledError)
            for event in ("cancelled", "ended"):
                await asyncio.to_thread(SHARED[event].wait, 30)
                assert SHARED[event].is_set()
        assert SHARED["code"] == "CANCELLED"

    async def test_cancelling_the_awaitable(self, repository):
        repository.add(
            "waits",
            """
            while not requests[0].is_cancelled():
                SHARED["poll"].wait(0.001)
            SHARED["cancelled"].set()
            return [answer([0])]
            """,
        )
        repository.add(
            "impatient",
            """
            try:
                await asyncio.wait_for(request("waits", [1]).async_exec(), 0.01)
            except TimeoutError:
                return [answer([1])]
            """,
            is_async=True,
        )
        SHARED["poll"] = threading.Event()
        async with serve(repository) as engine:
            assert await infer(engine, "impatient", 1) == [1]
            await asyncio.to_thread(SHARED["cancelled"].wait, 30)
            assert SHARED["cancelled"].is_set()


class TestConcurrentCoroutines:
    BODY = """
        for r in requests:
            sender = r.get_response_sender()
            SHARED.setdefault("loops", []).append(asyncio.get_running_loop())
            everyone = SHARED.setdefault("everyone", asyncio.Barrier(5))
            await everyone.wait()
            sender.send(answer(values(await request("double", given(r)).async_exec())))
            sender.send(flags=FINAL)
    """

    async def ask(self, engine, *values):
        received: list[object] = []
        done = asyncio.Event()

        def on_response(_, response):
            received.append(response)
            if response.final:
                done.set()

        asked = request("async", *values, on_response=on_response)
        engine.submit(asked)
        await asyncio.wait_for(done.wait(), 30)
        return received

    async def test_requests_of_one_instance_wait_together(self, repository):
        repository.double()
        repository.add("async", self.BODY, DECOUPLED, is_async=True)
        async with serve(repository) as engine:
            results = await asyncio.gather(*(self.ask(engine, i) for i in range(5)))
        assert [result[0].outputs[0].numpy().tolist() for result in results] == [[2 * i] for i in range(5)]
        assert len(set(SHARED["loops"])) == 1

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("raise ValueError('mine')", "ValueError: mine"),
            ("return [answer([0])]", "decoupled mode and the execute function must return None"),
            ("return 5", "Expected a list in the execute return"),
            ("await asyncio.sleep(0)", "neither in what execute returned nor to the end"),
        ],
    )
    async def test_a_failure_is_answered(self, repository, body, message):
        repository.add("async", body, DECOUPLED, is_async=True)
        async with serve(repository) as engine:
            (response,) = await self.ask(engine, 1)
            assert message in str(response.error)

    async def test_a_coroutine_may_wait_for_a_slow_reader(self, repository):
        repository.add(
            "async",
            """
            sender = requests[0].get_response_sender()
            for i in range(100):
                room = sender.send(answer([i]))
                SHARED["sent"].append(i)
                if given(requests[0])[0]:
                    await room
            sender.send(flags=FINAL)
            """,
            DECOUPLED,
            is_async=True,
        )
        # Reads three responses, then waits until it is told to read on.
        read, read_on = threading.Semaphore(3), threading.Event()

        def throttle():
            if not read.acquire(blocking=False):
                SHARED["sent_enough"].set()
                read_on.wait(30)

        async with serve(repository) as engine:
            done = asyncio.Event()
            asked = request("async", 1, on_response=lambda _, response: response.final and done.set())
            asked.throttle = throttle
            engine.submit(asked)
            assert await asyncio.to_thread(SHARED["sent_enough"].wait, 30)
            # Another request on the same event loop does not wait for it.
            assert len(await self.ask(engine, 0)) == 101
            assert SHARED["sent"][:4] == [0, 1, 2, 3]
            assert SHARED["sent"][4:] == list(range(100))
            read_on.set()
            await asyncio.wait_for(done.wait(), 30)

    async def test_what_runs_on_after_the_answer_ends_with_the_model(self, repository):
        repository.add(
            "async",
            """
            requests[0].get_response_sender().send(answer([1]), flags=FINAL)
            try:
                await asyncio.sleep(1000)
            finally:
                SHARED["cancelled"].set()
            """,
            DECOUPLED,
            is_async=True,
            extra="def finalize(self): SHARED['before_finalize'] = SHARED['cancelled'].is_set()",
        )
        async with serve(repository) as engine:
            await self.ask(engine, 1)
        assert SHARED["before_finalize"] is True


class TestControl:
    CONFIG_JSON = (
        '{"backend": "python", "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],'
        ' "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}]}'
    )

    async def test_a_model_loads_and_unloads_another(self, repository):
        repository.double()
        repository.add(
            "control",
            """
            found = [pb_utils.is_model_ready("double")]
            pb_utils.load_model("double")
            found += [pb_utils.is_model_ready("double", "1"), values(request("double", [4]).exec())[0]]
            pb_utils.unload_model("double", unload_dependents=True)
            found += [pb_utils.is_model_ready("double"), request("double", [4]).exec().has_error()]
            return [answer(found)]
            """,
        )
        async with serve(repository, load_models=["control"]) as engine:
            assert await infer(engine, "control", 0) == [0, 1, 8, 0, 1]

    async def test_in_initialize_while_the_server_starts(self, repository):
        repository.double()
        for i in range(6):
            repository.add(
                f"needs_{i}",
                'return [answer(values(request("double", given(r)).exec())) for r in requests]',
                extra="def initialize(self, args): pb_utils.load_model('double')",
            )
        async with serve(repository, load_models=[f"needs_{i}" for i in range(6)]) as engine:
            assert await infer(engine, "needs_5", 1) == [2]

    async def test_two_that_load_each_other(self, repository):
        for name, other in (("a", "b"), ("b", "a"), ("self", "self")):
            repository.add(name, "return []", extra=f"def initialize(self, args): pb_utils.load_model('{other}')")
        async with serve(repository, load_models=[]) as engine:
            for name in ("a", "self"):
                with pytest.raises(InvalidArgumentError, match="they would wait for each other"):
                    await asyncio.wait_for(engine.load(name), 30)

    async def test_of_itself(self, repository):
        repository.add(
            "selfish",
            """
            pb_utils.unload_model("selfish")
            ready = pb_utils.is_model_ready("selfish")
            return [answer([ready])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "selfish", 0) == [0]

    async def test_in_finalize(self, repository):
        repository.double()
        repository.add("last", "return []", extra="def finalize(self): pb_utils.unload_model('double')")
        async with serve(repository) as engine:
            gone = unloaded(engine, "double")
            await engine.unload("last")
            await asyncio.wait_for(gone.wait(), 30)

    async def test_errors_are_the_servers(self, repository):
        repository.add(
            "control",
            """
            try:
                pb_utils.load_model("nobody")
            except pb_utils.TritonModelException as error:
                SHARED["message"] = str(error)
            pb_utils.unload_model("nobody")
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "control", 0)
        assert (
            SHARED["message"] == "Failed to load model: failed to load 'nobody', failed to poll from model repository"
        )

    async def test_a_version_that_is_no_number(self, repository):
        repository.add("asks", 'return [answer([pb_utils.is_model_ready("asks", "x")])]')
        async with serve(repository) as engine:
            with pytest.raises(
                InternalError, match=r"Failed to check model readiness: .* specified version string 'x'"
            ):
                await infer(engine, "asks", 0)

    async def test_needs_explicit_control(self, repository):
        repository.add("control", "pb_utils.load_model('control')")
        async with serve(repository, model_control_mode="none", load_models=()) as engine:
            with pytest.raises(
                InternalError, match="Failed to load model: explicit model load / unload is not allowed"
            ):
                await infer(engine, "control", 0)

    async def test_not_while_the_file_is_imported(self, repository):
        folder = repository.path / "early" / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text("import triton_python_backend_utils as p\np.load_model('x')")
        (repository.path / "early" / "config.pbtxt").write_text(CONFIG)
        async with serve(repository, load_models=[]) as engine:
            with pytest.raises(InvalidArgumentError, match="not while a model's file is imported"):
                await engine.load("early")


class TestMetrics:
    BODY = """
        self.metric.increment(given(requests[0])[0])
        return [answer([self.metric.value()])]
    """
    EXTRA = """
        def initialize(self, args):
            family = pb_utils.MetricFamily(name="seen", description="d", kind=pb_utils.MetricFamily.COUNTER)
            self.metric = family.Metric(labels={"model": "shared"})
    """

    async def test_are_shared_by_name_and_gone_with_their_models(self, repository):
        for name in ("one", "two"):
            repository.add(name, self.BODY, extra=self.EXTRA)
        async with serve(repository) as engine:
            assert await infer(engine, "one", 2) == [2]
            assert await infer(engine, "two", 3) == [5]
            (family,) = engine.metrics.families()
            assert [(sample.labels, sample.value) for sample in family.samples()] == [((("model", "shared"),), 5)]
            for name in ("one", "two"):
                assert len(engine.metrics.families()) == 1
                gone = unloaded(engine, name)
                await engine.unload(name)
                await asyncio.wait_for(gone.wait(), 30)
            assert engine.metrics.families() == []

    async def test_messages(self, repository):
        repository.add(
            "wrong",
            """
            kinds = pb_utils.MetricFamily
            counters = kinds("bls_c", "d", kinds.COUNTER)
            histograms = kinds("bls_h", "d", kinds.HISTOGRAM)
            for attempt in (
                lambda: counters.Metric(labels=5),
                lambda: counters.Metric(buckets=[1]),
                lambda: histograms.Metric(),
                lambda: histograms.Metric(buckets=[2, 1]),
                lambda: histograms.Metric(buckets={1}),
                lambda: counters.Metric().increment(-1),
                lambda: counters.Metric().set(1),
                lambda: counters.Metric().observe(1),
                lambda: histograms.Metric(buckets=[1]).value(),
                lambda: kinds("bls_c", "d", kinds.GAUGE),
                lambda: kinds("b-c", "d", kinds.GAUGE),
            ):
                try:
                    attempt()
                except pb_utils.TritonModelException as error:
                    SHARED.setdefault("messages", []).append(str(error))
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "wrong", 0)
        assert SHARED["messages"] == [
            "Failed to create metric. Labels must be a dictionary.",
            "Failed to create metric. Unexpected buckets found.",
            "Failed to create metric. Missing required buckets.",
            "Error when creating Metric: Bucket Boundaries must be strictly sorted",
            "Failed to create metric. Buckets must be a list.",
            (
                "Failed to increment metric value: TRITONSERVER_METRIC_KIND_COUNTER can only be incremented"
                " monotonically by non-negative values."
            ),
            "Failed to set metric value: TRITONSERVER_METRIC_KIND_COUNTER does not support Set",
            "Failed to observe metric value: TRITONSERVER_METRIC_KIND_COUNTER does not support Observe",
            "Failed to get metric value: TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Value",
            "Error when creating MetricFamily: Family name already exists",
            "Error when creating MetricFamily: Invalid metric name",
        ]
