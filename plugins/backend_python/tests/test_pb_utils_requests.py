"""Requests that a model is given, and requests that it makes. Compared with Triton 2.51."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trivet.backend import ModelCaller
from trivet.errors import NotFoundError
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor as KernelTensor
from trivet_backend_python import pb_utils
from trivet_backend_python.pb_utils.request import ServedRequest, Service


class TestServedRequest:
    def served(self, models, row, **fields):
        model = models.execute("return [None]")
        request = model.request(INPUT0=row, **fields)
        return ServedRequest(request, Service(None, frozenset({"OUTPUT0"}), decoupled=False, to_host=True)), request

    def test_shows_the_request(self, models, row):
        request, _ = self.served(
            models,
            row,
            id="a",
            correlation_id="c",
            sequence_start=True,
            sequence_end=True,
            timeout_us=5,
            parameters={"x": 1, "y": "é", "z": True, "f": 1.5},
        )
        assert request.request_id() == "a"
        assert request.correlation_id() == "c"
        assert request.flags() == 3
        assert request.timeout() == 5
        assert request.parameters() == '{"x":1,"y":"é","z":true,"f":1.5}'
        assert request.model_name() == "m"
        assert request.model_version() == -1
        assert request.requested_output_names() == {"OUTPUT0"}
        assert request.trace().get_context() is None
        assert not request.is_cancelled()
        assert [tensor.name() for tensor in request.inputs()] == ["INPUT0"]
        assert request.inputs()[0] is request.inputs()[0] is pb_utils.get_input_tensor_by_name(request, "INPUT0")
        assert pb_utils.get_input_tensor_by_name(request, "OTHER") is None

    def test_defaults(self, models, row):
        request, _ = self.served(models, row, outputs=[])
        assert request.request_id() == ""
        assert request.correlation_id() == 0
        assert request.flags() == 0
        assert request.parameters() == "{}"
        assert request.requested_output_names() == set()

    def test_sees_that_it_was_cancelled(self, models, row):
        request, kernel = self.served(models, row)
        kernel.cancelled = True
        assert request.is_cancelled()

    def test_is_rescheduled_by_a_model_of_iterative_sequences_only(self, models, row):
        request, kernel = self.served(models, row)
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
        with pytest.raises(pb_utils.TritonModelException, match="the model is not configured to handle such a flag"):
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        assert not kernel.rescheduled
        with pytest.raises(pb_utils.TritonModelException, match="unknown release flags 7"):
            request.set_release_flags(7)

    def test_cannot_be_run_again(self, models, row):
        request, _ = self.served(models, row)
        for run in (request.exec, request.async_exec):
            with pytest.raises(pb_utils.TritonModelException, match="make a new InferenceRequest"):
                run()

    def test_that_is_forgotten_is_answered_past_a_slow_reader(self, models, row):
        # Whichever thread the garbage collector runs on must not wait for somebody else's caller.
        request, kernel = self.served(models, row)
        answers = []
        kernel.responder = lambda _, response: answers.append(response)
        kernel.throttle = lambda: pytest.fail("waited for the reader")
        request.get_response_sender()
        del request
        assert "neither in what execute returned" in answers[0].error.message


class TestMadeRequest:
    def make(self, **fields):
        return pb_utils.InferenceRequest(
            **{"model_name": "other", "requested_output_names": ["O"], "inputs": [], **fields}
        )

    def test_keeps_what_it_is_given(self):
        tensor = pb_utils.Tensor("I", np.ones(1, np.float32))
        request = self.make(
            request_id="r",
            correlation_id=3,
            inputs=[tensor],
            model_version=2,
            flags=pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
            timeout=9,
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_GPU, 1),
            trace=pb_utils.InferenceTrace("context"),
            parameters={"a": 1, "b": True},
        )
        assert request.inputs() == [tensor]
        assert pb_utils.get_input_tensor_by_name(request, "I") is tensor
        assert request.model_version() == 2
        assert request.flags() == 1
        request.set_flags(pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        assert request.flags() == 2
        assert request.trace().get_context() == "context"
        assert json.loads(request.parameters()) == {"a": 1, "b": True}

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"inputs": [None]}, "Input tensor for request with id '' and model name 'other' should not be empty."),
            (
                {"requested_output_names": [""]},
                "Requested output name for request with id '' and model name 'other' should not be empty.",
            ),
            ({"correlation_id": [1]}, "Correlation ID must be integer or string"),
            (
                {"parameters": {"a": [1]}},
                "Expect parameters values to have type bool/int/float/str, found type <class 'list'>",
            ),
            ({"parameters": {1: 1}}, "Expect parameters keys to have type str, found type <class 'int'>"),
        ],
    )
    def test_refuses_values_that_no_request_can_have(self, fields, message):
        with pytest.raises(pb_utils.TritonModelException) as caught:
            self.make(**fields)
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        "fields",
        [
            {"inputs": None},
            {"inputs": [5]},
            {"model_name": None},
            {"model_name": 5},
            {"model_version": "1"},
            {"request_id": 5},
            {"flags": "START"},
            {"timeout": "soon"},
            {"timeout": 1.5},
            {"timeout": -1},
            {"preferred_memory": 5},
            {"parameters": 5},
        ],
    )
    def test_refuses_other_types(self, fields):
        with pytest.raises(TypeError):
            self.make(**fields)

    def test_has_no_response_sender(self):
        with pytest.raises(pb_utils.TritonModelException, match="has no response sender"):
            self.make().get_response_sender()

    def test_runs_in_a_model_only(self):
        with pytest.raises(pb_utils.TritonModelException, match="BLS is only supported during the 'execute' function"):
            self.make().exec()

    def test_release_flags_have_no_effect(self):
        self.make().set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)


class Doubler(ModelCaller):
    """Stands for the rest of the server: one model, ``other``, that doubles ``I`` into an array that it keeps."""

    def __init__(self):
        self.requests = []
        self.kept = None

    def infer(self, request, timeout_s=None):
        self.requests.append(request)
        if request.model_name != "other":
            return InferenceResponse(error=NotFoundError(f"no model '{request.model_name}'"))
        self.kept = request.inputs["I"].numpy() * 2
        return InferenceResponse([KernelTensor.from_numpy("O", self.kept)], parameters={"p": 1})

    def submit(self, request, on_response):
        on_response(self.infer(request))

    def cancel(self, request):
        raise AssertionError("everything is answered at once")

    def is_ready(self, name, version=""):
        return name == "other"

    def is_decoupled(self, name, version=""):
        return False

    def on_loop(self):
        return False

    def load(self, name, **_):
        raise NotImplementedError

    unload = load


class TestCallingOtherModels:
    def run(self, models, row, body):
        caller = Doubler()
        source = f"""
            import asyncio
            import numpy as np
            import triton_python_backend_utils as pb_utils

            class TritonPythonModel:
                {"async " if "await" in body else ""}def execute(self, requests):
                    x = requests[0].inputs()[0].as_numpy()
                    request = lambda name="other": pb_utils.InferenceRequest(
                        model_name=name, requested_output_names=["O"], inputs=[pb_utils.Tensor("I", x)])
                    {body}
                    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", out)])]
        """
        return models.run("m", source, call=caller)(INPUT0=row)["OUTPUT0"], caller

    def test_exec(self, models, row):
        out, caller = self.run(
            models, row, 'out = pb_utils.get_output_tensor_by_name(request().exec(), "O").as_numpy()'
        )
        np.testing.assert_array_equal(out, row * 2)
        assert [output.name for output in caller.requests[0].outputs] == ["O"]
        assert not caller.requests[0].inputs["I"].numpy().flags.writeable

    def test_what_comes_back_may_be_written(self, models, row):
        _, caller = self.run(models, row, "out = request().exec().output_tensors()[0].as_numpy(); out += 1")
        np.testing.assert_array_equal(caller.kept, row * 2)

    def test_several_at_a_time(self, models, row):
        out, _ = self.run(
            models,
            row,
            "a, b = await asyncio.gather(request().async_exec(), request().async_exec());"
            " out = a.output_tensors()[0].as_numpy() + b.output_tensors()[0].as_numpy()",
        )
        np.testing.assert_array_equal(out, row * 4)

    def test_errors_are_in_the_response(self, models, row):
        out, _ = self.run(
            models,
            row,
            'r = request("nobody").exec(); assert r.has_error() and "nobody" in r.error().message();'
            " assert r.error().code() == pb_utils.TritonError.NOT_FOUND; out = x",
        )
        np.testing.assert_array_equal(out, row)

    def test_is_model_ready(self, models, row):
        out, _ = self.run(
            models, row, 'out = np.array([[pb_utils.is_model_ready("other"), pb_utils.is_model_ready("x")]])'
        )
        assert out.tolist() == [[True, False]]
