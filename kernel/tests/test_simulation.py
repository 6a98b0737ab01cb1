"""The simulated world around a scheduler does what the engine does."""

from __future__ import annotations

from trivet.config import parse_text_config
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.scheduling import Batch, DefaultScheduler
from trivet.testing import Simulation

CONFIG = parse_text_config('name: "m" max_batch_size: 8', "test")


def test_time_passes_only_with_what_happens() -> None:
    simulation = Simulation(DefaultScheduler, CONFIG, instances=2, compute_ns=lambda _: 1000)
    requests = [InferenceRequest("m", {}) for _ in range(3)]
    for request in requests:
        assert simulation.submit(request) is None
    assert simulation.scheduler.queued == 1
    simulation.run()
    assert simulation.answered == requests
    assert simulation.now_ns == 2000


def test_a_model_may_want_a_request_again() -> None:
    steps: list[InferenceRequest] = []

    def respond(request: InferenceRequest) -> list[InferenceResponse]:
        steps.append(request)
        request.rescheduled = len(steps) < 3
        return [InferenceResponse(final=not request.rescheduled)]

    simulation = Simulation(DefaultScheduler, CONFIG, compute_ns=lambda _: 1000, respond=respond)
    request = InferenceRequest("m", {})
    simulation.submit(request)
    simulation.run()
    assert [response.final for response in simulation.answers[request]] == [False, False, True]
    assert simulation.now_ns == 3000


def test_a_scheduler_that_refuses_a_step_ends_the_request() -> None:
    class OneStep(DefaultScheduler):
        def reschedule(self, request: InferenceRequest) -> None:
            raise InvalidArgumentError("one step is all there is")

    def respond(request: InferenceRequest) -> list[InferenceResponse]:
        request.rescheduled = True
        return []

    simulation = Simulation(OneStep, CONFIG, compute_ns=lambda _: 1000, respond=respond)
    request = InferenceRequest("m", {})
    simulation.submit(request)
    simulation.run()
    (response,) = simulation.answers[request]
    assert str(response.error) == "one step is all there is"


def test_the_scheduler_hears_of_the_final_response_whichever_it_is() -> None:
    simulation = Simulation(DefaultScheduler, CONFIG)
    heard: list[InferenceRequest] = []
    answered, cancelled = InferenceRequest("m", {}), InferenceRequest("m", {})
    for request in (answered, cancelled):
        request.on_done = heard.append
        simulation.submit(request)
    simulation.cancel(cancelled)
    simulation.finish(simulation.instances[0])
    assert heard == [cancelled, answered]


def test_a_batch_that_is_to_stay_whole_is_executed_with_what_was_cancelled() -> None:
    class Whole(DefaultScheduler):
        def enqueue(self, request: InferenceRequest) -> None:
            self.context.submit_any(Batch((request,), whole=True))

    for scheduler, executions in ((Whole, 2), (DefaultScheduler, 1)):
        simulation = Simulation(scheduler, CONFIG)
        first, second = InferenceRequest("m", {}), InferenceRequest("m", {})
        simulation.submit(first)
        simulation.submit(second)
        simulation.cancel(second)
        simulation.finish(simulation.instances[0])
        assert len(simulation.executions) == executions
        assert len(simulation.answers[second]) == 1
