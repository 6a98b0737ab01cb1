"""Any graph: what comes out is what its models compute one after the other, and every request ends exactly once.

The graphs are random: some steps read inputs that may be left out, some leave outputs out, one may be decoupled, and
models are made without batches here and there. They are evaluated twice: by the server, and by a few lines of Python
below.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble_models import Answers, Operations, Repository, ask, numbers, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trivet.engine import Engine
from trivet.errors import RequestCancelledError
from trivet.inference import RequestedOutput
from trivet.testing import running_engine

Values = dict[str, float | None]


@dataclass(frozen=True)
class GraphStep:
    operation: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Graph:
    inputs: Sequence[str]
    optional: Sequence[str]
    steps: Sequence[GraphStep]
    outputs: Sequence[str]
    most: int


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    inputs = [f"I{number}" for number in range(draw(st.integers(1, 3)))]
    # The first is always given; a step that needs one that may be missing has it as its optional input.
    optional = [name for name in inputs[1:] if draw(st.booleans())]
    level = dict.fromkeys(inputs, 0)  # which decoupled step a tensor comes from, 0 for none
    sure = set(inputs) - set(optional)
    newest = inputs[0]
    steps: list[GraphStep] = []
    for number in range(draw(st.integers(1, 6))):
        kinds = ["increment", "add", "evens"]
        if level and max(level.values()) < 2:
            kinds.append("repeat")
        operation = draw(st.sampled_from(kinds))
        # Mostly the newest, so that graphs grow deep.
        source = draw(st.sampled_from([*sorted(sure), newest, newest, newest]))
        if operation == "add":
            beside = sorted(tensor for tensor, origin in level.items() if origin == level[source])
            names = {"a": source}
            if draw(st.booleans()):
                names["b"] = draw(st.sampled_from(beside))
            written = ["s"]
        else:
            names = {"x": source}
            written = ["y", "z"] if operation == "increment" and draw(st.booleans()) else ["y"]
        origin = max(level.values()) + 1 if operation == "repeat" else level[source]
        outputs = {name: f"t{number}{name}" for name in written}
        for tensor in outputs.values():
            level[tensor] = origin
            if operation != "evens":
                sure.add(tensor)
                newest = tensor
        steps.append(GraphStep(operation, names, outputs))
    # Outputs come equally often; what they do not need is left out of the graph, as Triton wants every tensor used.
    last = steps[-1].outputs
    wanted = {next(iter(last.values()))}
    wanted |= {
        tensor
        for tensor in level
        if tensor not in inputs and level[tensor] == level[next(iter(wanted))] and draw(st.booleans())
    }
    kept: list[GraphStep] = []
    needed = set(wanted)
    for step in reversed(steps):
        if needed & set(step.outputs.values()):
            used = {name: tensor for name, tensor in step.outputs.items() if tensor in needed}
            kept.append(GraphStep(step.operation, step.inputs, used))
            needed |= set(step.inputs.values())
    draw(st.randoms()).shuffle(kept)
    used_inputs = [name for name in inputs if name in needed]
    return Graph(
        used_inputs, [n for n in optional if n in needed], kept, sorted(wanted), draw(st.sampled_from([0, 0, 1, 3]))
    )


def evaluate(graph: Graph, given: Mapping[str, float], outputs: Sequence[str]) -> list[dict[str, float]]:
    """All responses of the ensemble, by evaluating its steps when they can be."""

    def go(values: Values, waiting: Sequence[GraphStep]) -> Iterator[dict[str, float]]:
        for step in waiting:
            if all(tensor in values for tensor in step.inputs.values()):
                rest = [other for other in waiting if other is not step]
                for made in apply(step, values):
                    yield from go({**values, **made}, rest)
                return
        yield {name: value for name in outputs if (value := values[name]) is not None}

    # Of a decoupled step everything that does not come from it must be computed before.
    order = sorted(graph.steps, key=lambda step: step.operation == "repeat")
    values: Values = {name: given.get(name) for name in graph.inputs}
    needed = needed_for(graph, outputs)
    return list(go(values, [step for step in order if step in needed]))


def needed_for(graph: Graph, outputs: Sequence[str]) -> list[GraphStep]:
    tensors_ = set(outputs)
    while more := {t for s in graph.steps if tensors_ & set(s.outputs.values()) for t in s.inputs.values()} - tensors_:
        tensors_ |= more
    return [step for step in graph.steps if tensors_ & set(step.outputs.values())]


def apply(step: GraphStep, values: Values) -> Iterator[Values]:
    arguments = {name: values[tensor] for name, tensor in step.inputs.items()}
    if step.operation == "add":
        first, second = arguments["a"], arguments.get("b")
        assert first is not None
        results: list[dict[str, float | None]] = [{"s": first + (second or 0)}]
    else:
        x = arguments["x"]
        assert x is not None
        if step.operation == "increment":
            results = [{"y": x + 1, "z": x * 10}]
        elif step.operation == "evens":
            results = [{"y": x if x % 2 == 0 else None}]
        else:
            results = [{"y": x + number} for number in range(int(x))]
    for result in results:
        yield {tensor: result[name] for name, tensor in step.outputs.items()}


def build(models: Repository, graph: Graph) -> None:
    for step in graph.steps:
        models.model(step.operation, step.operation, instances=1 if step.operation == "repeat" else 2)
    models.ensemble(
        "e",
        *((step.operation, step.inputs, step.outputs) for step in graph.steps),
        inputs=graph.inputs,
        optional=graph.optional,
        outputs=graph.outputs,
        most=graph.most,
    )


async def check(engine: Engine, graph: Graph, draw: st.DataObject) -> None:
    runs = []
    for _ in range(draw.draw(st.integers(1, 4))):
        given_ = {
            name: float(draw.draw(st.integers(0, 3)))
            for name in graph.inputs
            if name not in graph.optional or draw.draw(st.booleans())
        }
        outputs = draw.draw(st.lists(st.sampled_from(graph.outputs), min_size=1, unique=True))
        answers = Answers()
        request = ask(
            "e",
            tensors(**{name: [value] * 4 for name, value in given_.items()}),
            answers,
            outputs=[RequestedOutput(name) for name in outputs],
        )
        runs.append((request, answers, given_, outputs, draw.draw(st.integers(0, 4)) == 0))
        engine.submit(request)
    for request, _, _, _, cancelled in runs:
        if cancelled:
            for _ in range(draw.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            engine.cancel(request)
    for _, answers, given_, outputs, cancelled in runs:
        await asyncio.wait_for(answers.final.wait(), 30)
        if answers.all[-1].error is not None:
            assert cancelled
            assert isinstance(answers.all[-1].error, RequestCancelledError)
            continue
        got = [
            {name: value[0][0] for name, value in numbers(response).items()}
            for response in answers.all
            if response.outputs or not response.final or not engine.model("e").spec.decoupled
        ]
        expected = evaluate(graph, given_, outputs)
        # A last response without outputs is the same as being told that there are no more.
        if got != expected and expected and not expected[-1]:
            expected.pop()
        assert got == expected
    for name in {step.operation for step in graph.steps} | {"e"}:
        assert not engine.model(name).in_flight
    scheduler = engine.model("e").scheduler
    assert scheduler.queued == 0
    assert all(limit.in_flight == 0 for limit in getattr(scheduler, "limits", None) or ())


@given(graphs(), st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_an_ensemble_computes_what_its_graph_says(graph: Graph, data: st.DataObject) -> None:
    async def main() -> None:
        operations = Operations()
        with tempfile.TemporaryDirectory() as folder:
            models = Repository(Path(folder))
            build(models, graph)
            async with running_engine(models.root, registry=operations.registry()) as engine:
                await check(engine, graph, data)

    asyncio.run(main())
