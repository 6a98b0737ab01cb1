"""One request through an ensemble: what each step is given, what comes back, and what happens when a step fails."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from anyio import to_thread
from ensemble_models import Answers, HostArray, Operations, Repository, ask, numbers, tensors
from trivet.datatypes import FP32
from trivet.errors import Code, InternalError, InvalidArgumentError, RequestCancelledError, TrivetError
from trivet.inference import InferenceRequest, RequestedOutput
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_scheduler_ensemble.scheduler import EnsembleScheduler

pytestmark = pytest.mark.anyio

ONE = [1.0, 2.0, 3.0, 4.0]


async def test_a_step_runs_on_what_the_one_before_it_answered(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("e", ("m", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O", "z": "P"}), outputs=("P", "O"))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        response = await engine.infer(InferenceRequest("e", tensors(I=ONE)))
        assert [tensor.name for tensor in response.outputs] == ["P", "O"]
        assert numbers(response) == {"O": [[3, 4, 5, 6]], "P": [[20, 30, 40, 50]]}
        assert engine.model("e").platform == "ensemble"
        # Every batch size that the ensemble takes goes to its models as it is.
        batch = np.arange(12, dtype=np.float32).reshape(3, 4)
        assert numbers(await engine.infer(InferenceRequest("e", tensors(I=batch))))["O"] == (batch + 2).tolist()


async def test_branches_run_side_by_side_and_come_together(models: Repository, operations: Operations) -> None:
    models.model("left", "wait")
    models.model("right", "wait")
    models.model("sum", "add")
    models.ensemble(
        "e",
        ("sum", {"a": "l", "b": "r"}, {"s": "O"}),
        ("right", {"x": "I"}, {"z": "r"}),
        ("left", {"x": "I"}, {"y": "l"}),
    )
    async with running_engine(models.root, registry=operations.registry()) as engine:
        running = asyncio.ensure_future(engine.infer(InferenceRequest("e", tensors(I=ONE))))
        for name in ("left", "right"):
            await to_thread.run_sync(operations.started[name].wait, 30)
        assert not operations.seen["sum"]
        operations.gates["right"].set()
        operations.gates["left"].set()
        assert numbers(await running) == {"O": [[12, 23, 34, 45]]}


async def test_only_what_is_asked_for_is_computed(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.model("other")
    models.ensemble(
        "e",
        ("m", {"x": "I"}, {"y": "t", "z": "u"}),
        ("m", {"x": "t"}, {"y": "O"}),
        ("other", {"x": "u"}, {"y": "P"}),
        outputs=("O", "P"),
    )
    async with running_engine(models.root, registry=operations.registry()) as engine:
        request = InferenceRequest("e", tensors(I=ONE), outputs=[RequestedOutput("O")])
        assert numbers(await engine.infer(request)) == {"O": [[3, 4, 5, 6]]}
        assert not operations.seen["other"]
        first, _ = operations.seen["m"]
        assert [output.name for output in first.outputs or ()] == ["y"]
        request = InferenceRequest("e", tensors(I=ONE), outputs=[RequestedOutput("P"), RequestedOutput("O")])
        assert list(numbers(await engine.infer(request))) == ["P", "O"]


async def test_an_optional_input_reaches_its_step_or_does_not(models: Repository, operations: Operations) -> None:
    models.model("sum", "add")
    models.ensemble("e", ("sum", {"a": "I", "b": "J"}, {"s": "O"}), inputs=("I", "J"), optional=("J",))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert numbers(await engine.infer(InferenceRequest("e", tensors(I=ONE)))) == {"O": [ONE]}
        both = await engine.infer(InferenceRequest("e", tensors(I=ONE, J=ONE)))
        assert numbers(both) == {"O": [[2, 4, 6, 8]]}


async def test_an_output_that_a_model_leaves_out_is_an_input_that_is_not_given(
    models: Repository, operations: Operations
) -> None:
    models.model("evens", "evens")
    models.model("sum", "add")
    models.ensemble("e", ("evens", {"x": "I"}, {"y": "t"}), ("sum", {"a": "I", "b": "t"}, {"s": "O"}))
    models.ensemble("needs", ("evens", {"x": "I"}, {"y": "t"}), ("sum", {"a": "t"}, {"s": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert numbers(await engine.infer(InferenceRequest("e", tensors(I=ONE)))) == {"O": [ONE]}
        assert numbers(await engine.infer(InferenceRequest("e", tensors(I=[2, 2, 2, 2])))) == {"O": [[4, 4, 4, 4]]}
        with pytest.raises(InvalidArgumentError, match=r"^in ensemble 'needs', .*missing required input\(s\) \['a'\]"):
            numbers(await engine.infer(InferenceRequest("needs", tensors(I=ONE))))


async def test_everything_of_the_request_but_its_tensors_goes_to_each_step(
    models: Repository, operations: Operations
) -> None:
    models.model("m")
    models.ensemble("e", ("m", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        request = InferenceRequest(
            "e",
            tensors(I=ONE),
            id="r7",
            parameters={"colour": "red"},
            priority=2,
            timeout_us=5_000_000,
            correlation_id=17,
            sequence_start=True,
        )
        request.trace_context = object()
        response = await engine.infer(request)
        for step in operations.seen["m"]:
            assert (step.id, step.parameters, step.priority, step.timeout_us) == ("r7", {"colour": "red"}, 2, 5_000_000)
            assert (step.correlation_id, step.sequence_start, step.sequence_end) == (17, True, False)
            assert step.trace_context is request.trace_context
        assert response.parameters == {"sequence_id": 17, "sequence_start": True, "sequence_end": False}


async def test_a_response_may_name_the_sequence_of_the_steps_behind_it(
    models: Repository, operations: Operations
) -> None:
    models.model("s", "sequence")
    models.model("m")
    models.ensemble("e", ("s", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        response = await engine.infer(InferenceRequest("e", tensors(I=ONE), correlation_id=5, sequence_start=True))
        (step,) = operations.seen["m"]
        assert (step.correlation_id, step.sequence_start, step.sequence_end) == (99, False, True)
        assert response.parameters == {"sequence_id": 99, "sequence_start": False, "sequence_end": True}


async def test_a_model_that_works_in_place_changes_no_tensor_that_others_read(
    models: Repository, operations: Operations
) -> None:
    models.model("m", "overwrite")
    models.model("sum", "add")
    models.ensemble(
        "e",
        ("m", {"x": "I"}, {"y": "t"}),
        ("m", {"x": "t"}, {"y": "u"}),
        ("sum", {"a": "I", "b": "t"}, {"s": "O"}),
        outputs=("t", "u", "O"),
    )
    async with running_engine(models.root, registry=operations.registry()) as engine:
        for inputs in (tensors(I=ONE), {"I": Tensor.from_wire("I", FP32, (1, 4), bytearray(np.array(ONE, "<f4")))}):
            response = numbers(await engine.infer(InferenceRequest("e", inputs)))
            assert response == {"t": [[10, 20, 30, 40]], "u": [[100, 200, 300, 400]], "O": [[11, 22, 33, 44]]}


async def test_tensors_are_handed_on_and_not_copied(models: Repository, operations: Operations) -> None:
    models.model("gpu", "device")
    models.model("next", "received")
    models.ensemble("e", ("gpu", {"x": "I"}, {"y": "t"}), ("next", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        response = await engine.infer(InferenceRequest("e", tensors(I=ONE)))
        assert numbers(response) == {"O": [[1, 1, 1, 1]]}, "the tensor left its device"
        assert isinstance(operations.passed_on["next"], HostArray)
        assert operations.passed_on["next"] is operations.passed_on["gpu"]


class TestBatchDimension:
    """A model without batches takes a batch as one tensor; else a batch of one is added, or taken away."""

    async def test_a_whole_batch_for_a_model_that_does_not_batch(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("whole", batch=0, dims=(-1, 4))
        models.ensemble("e", ("whole", {"x": "I"}, {"y": "O"}))
        async with running_engine(models.root, registry=operations.registry()) as engine:
            batch = np.ones((3, 4), np.float32)
            assert numbers(await engine.infer(InferenceRequest("e", tensors(I=batch)))) == {"O": [[2] * 4] * 3}

    async def test_no_batch_for_a_model_that_batches(self, models: Repository, operations: Operations) -> None:
        models.model("m")
        models.ensemble("e", ("m", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}), batch=0)
        async with running_engine(models.root, registry=operations.registry()) as engine:
            plain = np.ones(4, np.float32)
            assert numbers(await engine.infer(InferenceRequest("e", tensors(I=plain)))) == {"O": [3, 3, 3, 3]}
            (first, second) = operations.seen["m"]
            assert first.inputs["x"].shape == second.inputs["x"].shape == (1, 4)

    async def test_a_batch_of_one_for_a_model_that_takes_single_ones(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("single", batch=0)
        models.model("m")
        models.ensemble("e", ("single", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
        async with running_engine(models.root, registry=operations.registry()) as engine:
            assert numbers(await engine.infer(InferenceRequest("e", tensors(I=ONE)))) == {"O": [[3, 4, 5, 6]]}
            with pytest.raises(InvalidArgumentError, match=r"in ensemble 'e', .*unexpected shape for input 'x'"):
                numbers(await engine.infer(InferenceRequest("e", tensors(I=np.ones((2, 4), np.float32)))))


class TestFailures:
    async def test_the_error_of_a_step_keeps_its_kind_and_names_the_ensemble(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("m")
        models.ensemble("inner", ("m", {"x": "I"}, {"y": "O"}))
        models.ensemble("outer", ("inner", {"I": "I"}, {"O": "O"}))
        async with running_engine(models.root, registry=operations.registry()) as engine:
            response = await engine.infer(InferenceRequest("outer", tensors(I=[-1, 0, 0, 0])))
            assert isinstance(response.error, InternalError)
            assert str(response.error) == "in ensemble 'outer', in ensemble 'inner', negative input"
            for name in ("outer", "inner", "m"):
                (statistics,) = engine.statistics(name)
                assert (statistics.success.count, statistics.fail.count) == (0, 1)
            assert engine.model("m").in_flight == engine.model("inner").in_flight == set()

    async def test_the_other_branches_are_let_go(self, models: Repository, operations: Operations) -> None:
        models.model("slow", "wait")
        models.model("m")
        models.model("sum", "add")
        models.ensemble(
            "e",
            ("slow", {"x": "I"}, {"y": "l"}),
            ("m", {"x": "I"}, {"y": "r"}),
            ("sum", {"a": "l", "b": "r"}, {"s": "O"}),
        )
        async with running_engine(models.root, registry=operations.registry()) as engine:
            response = await engine.infer(InferenceRequest("e", tensors(I=[-1, 0, 0, 0])))
            assert str(response.error) == "in ensemble 'e', negative input"
            assert not engine.model("slow").in_flight
            operations.gates["slow"].set()
        # It may have been cancelled before it began, or while it waited.
        assert all(request.cancelled for request in operations.seen["slow"])
        assert not operations.seen["sum"]

    async def test_cancelling_a_request_cancels_it_down_to_the_backend(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("slow", "wait")
        models.ensemble("inner", ("slow", {"x": "I"}, {"y": "O"}))
        models.ensemble("outer", ("inner", {"I": "I"}, {"O": "O"}))
        async with running_engine(models.root, registry=operations.registry()) as engine:
            answers = Answers()
            request = ask("outer", tensors(I=ONE), answers)
            engine.submit(request)
            await to_thread.run_sync(operations.started["slow"].wait, 30)
            engine.cancel(request)
            (response,) = answers.all
            assert isinstance(response.error, RequestCancelledError)
            (running,) = operations.seen["slow"]
            assert running.cancelled
            for name in ("outer", "inner", "slow"):
                assert not engine.model(name).in_flight
            operations.gates["slow"].set()

    async def test_a_request_that_does_not_fit_is_refused_before_a_step_runs(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("m")
        models.ensemble("e", ("m", {"x": "I"}, {"y": "O"}))
        async with running_engine(models.root, registry=operations.registry()) as engine:
            with pytest.raises(InvalidArgumentError, match="unexpected shape for input 'I' for model 'e'"):
                await engine.infer(InferenceRequest("e", tensors(I=[1.0, 2.0])))
            with pytest.raises(TrivetError) as refused:
                await engine.infer(InferenceRequest("e", tensors(I=ONE), outputs=[RequestedOutput("t")]))
            assert refused.value.code is Code.INVALID_ARGUMENT
            assert not operations.seen["m"]


async def test_an_output_that_cannot_be_reshaped_fails_its_request_alone(
    models: Repository, operations: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    models.model("m", "stack", dims=(-1,))
    models.ensemble("e", ("m", {"x": "I"}, {"y": "O"}), dims=(-1,), most=1)
    config = models.root / "e" / "config.pbtxt"
    before, name, after = config.read_text().partition('name: "O"')
    reshaped = after.replace("dims: -1", "dims: 1\n dims: -1\n reshape { shape: -1 }", 1)
    config.write_text(before + name + reshaped)
    async with running_engine(models.root, registry=operations.registry()) as engine:
        for _ in range(2):
            response = await engine.infer(InferenceRequest("e", tensors(I=[0, 1, 2])))
            assert str(response.error).startswith(
                "in ensemble 'e', output tensor shape does not match size of output for 'O': model 'e' gave [1, 2, 3]"
            )
            assert numbers(await engine.infer(InferenceRequest("e", tensors(I=ONE)))) == {"O": [[ONE]]}
        scheduler = engine.model("e").scheduler
        assert isinstance(scheduler, EnsembleScheduler)
        assert scheduler.limits is not None
        assert [limit.in_flight for limit in scheduler.limits] == [0]
    assert not caplog.records


async def test_statistics_are_of_the_ensemble_and_of_each_model(models: Repository, operations: Operations) -> None:
    models.model("m")
    models.ensemble("e", ("m", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        for size in (1, 3, 3):
            await engine.infer(InferenceRequest("e", tensors(I=np.ones((size, 4), np.float32))))
        (ensemble,), (member,) = engine.statistics("e"), engine.statistics("m")
    assert (ensemble.inference_count, ensemble.execution_count, ensemble.success.count) == (7, 3, 3)
    assert (member.inference_count, member.execution_count, member.success.count) == (14, 6, 6)
    assert sorted((size, batch.compute_infer.count) for size, batch in ensemble.batches.items()) == [(1, 1), (3, 2)]
    # What the models computed, and nothing else, is what the ensemble computed.
    assert ensemble.compute_infer.ns == member.compute_infer.ns
    assert ensemble.compute_input.ns == member.compute_input.ns
    assert ensemble.compute_output.ns == member.compute_output.ns
    assert ensemble.success.ns > member.success.ns / 2
