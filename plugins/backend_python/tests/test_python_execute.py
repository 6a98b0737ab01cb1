"""What ``execute`` may return, and what callers see. Messages and behaviour were compared with Triton 2.51."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from trivet.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    UnavailableError,
    UnimplementedError,
)

ECHO = 'return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", r.inputs()[0].as_numpy())]) for r in requests]'

TWO_OUTPUTS = """
    backend: "python"
    max_batch_size: 8
    input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [-1] }, { name: "OUTPUT1" data_type: TYPE_FP32 dims: [-1] }]
"""

STRINGS = """
    backend: "python"
    max_batch_size: 8
    input [{ name: "INPUT0" data_type: TYPE_STRING dims: [-1] }]
    output [{ name: "OUTPUT0" data_type: TYPE_STRING dims: [-1] }]
"""


def test_answers_every_request_of_a_batch(models, row):
    model = models.execute(ECHO)
    first, second = model.run(model.request(INPUT0=row), model.request(INPUT0=row + 1))
    np.testing.assert_array_equal(first.outputs[0].numpy(), row)
    np.testing.assert_array_equal(second.outputs[0].numpy(), row + 1)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (None, ["OUTPUT1", "OUTPUT0"]),
        (["OUTPUT0", "OUTPUT1"], ["OUTPUT1", "OUTPUT0"]),
        (["OUTPUT0"], ["OUTPUT0"]),
    ],
)
def test_outputs_are_the_requested_ones_in_the_models_order(models, row, outputs, expected):
    model = models.execute(
        """
        x = requests[0].inputs()[0].as_numpy()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT1", x + 1), pb_utils.Tensor("OUTPUT0", x)])]
        """,
        TWO_OUTPUTS,
    )
    assert list(model(INPUT0=row, outputs=outputs)) == expected


def test_an_output_that_is_not_given_is_left_out(models, row):
    model = models.execute("return [pb_utils.InferenceResponse([])]")
    assert model(INPUT0=row) == {}


def test_an_undeclared_output_is_left_out_and_named_once_in_the_log(models, row, caplog):
    model = models.execute(ECHO.replace("OUTPUT0", "OUTPUT_0"))
    assert model(INPUT0=row) == {}
    assert model(INPUT0=row) == {}
    assert [r.levelname for r in caplog.records if "'OUTPUT_0'" in r.getMessage()] == ["WARNING"]


def test_datatype_and_shape_of_an_output_are_the_models_own(models, row):
    # As in Triton, which does not compare them with the configuration.
    model = models.execute('return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.ones((3,), np.int32))])]')
    output = model(INPUT0=row)["OUTPUT0"]
    assert (output.dtype, output.shape) == (np.int32, (3,))


def test_an_output_that_is_not_contiguous(models, row):
    model = models.execute(
        """
        column = np.arange(12, dtype=np.float32).reshape(3, 4).T[1:2]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", column)])]
        """
    )
    np.testing.assert_array_equal(model(INPUT0=row)["OUTPUT0"], [[1, 5, 9]])


def test_strings_come_as_bytes_and_go_as_anything(models):
    model = models.execute(
        """
        x = requests[0].inputs()[0].as_numpy()
        assert x.dtype == object and all(type(item) is bytes for item in x.flat)
        out = np.array([[x[0, 0], "é", 5, None]], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", out)])]
        """,
        STRINGS,
    )
    output = model(INPUT0=np.array([[b"a\0b\0"]], dtype=object))["OUTPUT0"]
    assert output.tolist() == [[b"a\0b\0", "é".encode(), b"5", b"None"]]


def test_fixed_width_bytes(models):
    model = models.execute(
        'return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.array([[b"a\\0b", b"x"]]))])]', STRINGS
    )
    assert model(INPUT0=np.array([[b""]], dtype=object))["OUTPUT0"].tolist() == [[b"a\0b", b"x"]]


def test_a_model_may_write_into_its_input(models, row):
    model = models.execute(
        """
        requests[0].inputs()[0].as_numpy()[:] *= 3
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", requests[0].inputs()[0].as_numpy())])]
        """
    )
    request = model.request(INPUT0=row)
    before = bytes(request.inputs["INPUT0"].wire())
    np.testing.assert_array_equal(model.run(request)[0].outputs[0].numpy(), row * 3)
    assert bytes(request.inputs["INPUT0"].wire()) == before


@pytest.mark.parametrize("size", [16, 100_000])
def test_a_model_may_reuse_its_output_buffer(models, size):
    model = models.execute(
        f"""
        if not hasattr(self, "buffer"):
            self.buffer = np.empty((4, {size}), np.float32)
        self.buffer[:] = requests[0].inputs()[0].as_numpy()[0, 0]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", self.buffer[:1])])]
        """
    )
    one, two = (np.full((1, 1), value, np.float32) for value in (1, 2))
    first = model.run(model.request(INPUT0=one))[0]
    second = model.run(model.request(INPUT0=two))[0]
    assert set(first.outputs[0].numpy().flat) == {1}
    assert set(second.outputs[0].numpy().flat) == {2}


def test_an_async_execute(models, row):
    source = f"""
        import asyncio
        import triton_python_backend_utils as pb_utils

        class TritonPythonModel:
            async def execute(self, requests):
                await asyncio.sleep(0)
                {ECHO}
    """
    np.testing.assert_array_equal(models.run("m", source)(INPUT0=row)["OUTPUT0"], row)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "return []",
            (
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects."
                " InferenceRequest(s) size is:1, and InferenceResponse(s) size is:0\n"
            ),
        ),
        ("return 5", "Expected a list in the execute return, found type '<class 'int'>'."),
        ("return tuple()", "Expected a list in the execute return, found type '<class 'tuple'>'."),
        (
            "return ['x']",
            "Expected an 'InferenceResponse' object in the execute function return list, found type '<class 'str'>'.",
        ),
    ],
)
def test_a_return_value_that_is_no_answer(models, row, body, reason):
    model = models.execute(body)
    with pytest.raises(InternalError) as caught:
        model(INPUT0=row)
    assert caught.value.message == f"Failed to process the request(s) for model 'm_0_0', message: {reason}"


def test_an_exception_says_what_and_where(models, row, caplog):
    model = models.execute(
        """
        def inner():
            raise KeyError("k")
        try:
            inner()
        except KeyError as error:
            raise RuntimeError("outer\\nmessage") from error
        """
    )
    with pytest.raises(InternalError) as caught:
        model(INPUT0=row)
    path = models.root / "m" / "1" / "model.py"
    assert caught.value.message == (
        "Failed to process the request(s) for model 'm_0_0', message: RuntimeError: outer\nmessage\n\nAt:\n"
        f"  {path}(11): execute\n"
    )
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("raise ValueError", "ValueError: <EMPTY MESSAGE>"),
        ("raise pb_utils.TritonModelException('no')", "TritonModelException: no"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("return [pb_utils.InferenceResponse(error='text')]", "TypeError: InferenceResponse: error takes"),
    ],
)
def test_any_exception_fails_the_requests_only(models, row, statement, text):
    model = models.execute(f"if requests[0].request_id() == 'bad':\n    {statement}\n{ECHO}")
    with pytest.raises(InternalError, match="Failed to process the request") as caught:
        model(INPUT0=row, id="bad")
    assert f"message: {text}" in caught.value.message
    assert model(INPUT0=row, id="good")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("UNKNOWN", InternalError),
        ("INTERNAL", InternalError),
        ("NOT_FOUND", NotFoundError),
        ("INVALID_ARG", InvalidArgumentError),
        ("UNAVAILABLE", UnavailableError),
        ("UNSUPPORTED", UnimplementedError),
        ("ALREADY_EXISTS", AlreadyExistsError),
        ("CANCELLED", RequestCancelledError),
    ],
)
def test_an_error_in_a_response_fails_that_request_only(models, row, code, error):
    model = models.execute(
        f"""
        failure = pb_utils.TritonError("mine", pb_utils.TritonError.{code})
        good = pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", requests[1].inputs()[0].as_numpy())])
        return [pb_utils.InferenceResponse([], failure), good]
        """
    )
    bad, good = model.run(model.request(INPUT0=row), model.request(INPUT0=row))
    assert type(bad.error) is error
    assert bad.error.message == "mine"
    assert good.error is None


def test_response_parameters(models, row):
    model = models.execute(
        """
        response = pb_utils.InferenceResponse([], parameters={"n": 1, "b": True})
        assert response.parameters() == '{"n": 1, "b": true}'
        return [response]
        """
    )
    assert model.run(model.request(INPUT0=row))[0].parameters == {"n": 1, "b": True}


class TestResponseSender:
    def test_answers_after_execute_returned(self, models, row):
        model = models.execute(
            """
            self.kept = [(r.get_response_sender(), r.inputs()[0].as_numpy()) for r in requests]
            def go():
                for sender, x in self.kept:
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", x)]), flags=1)
            self.go = go
            return None
            """
        )
        request = model.request(INPUT0=row)
        assert model.run(request) == []
        model.instances[0]._model.go()
        (response,) = request.context
        assert response.final
        np.testing.assert_array_equal(response.outputs[0].numpy(), row)

    def test_answers_some_requests_of_a_batch(self, models, row):
        model = models.execute(
            """
            answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", requests[0].inputs()[0].as_numpy())])
            requests[1].get_response_sender().send(answer)
            return [answer, None]
            """
        )
        assert len(model.run(model.request(INPUT0=row), model.request(INPUT0=row))) == 2

    @pytest.mark.parametrize("body", ["return None", "return [None]", "requests[0].get_response_sender()"])
    def test_a_request_that_nobody_will_answer_gets_an_error(self, models, row, body):
        model = models.execute(body)
        request = model.request(INPUT0=row, id="7")
        model.run(request)
        assert isinstance(request.context[0].error, InternalError)
        assert "request '7' neither" in request.context[0].error.message

    def test_a_response_that_cannot_be_sent_leaves_the_request_to_an_error(self, models, row):
        model = models.execute("""
            import threading
            sender = requests[0].get_response_sender()
            answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.zeros((1, 3), np.float32))])
            self.failures = []
            def work(sender):
                try:
                    sender.send(answer, flags=1)
                except ValueError as error:
                    self.failures.append(str(error))
            thread = threading.Thread(target=work, args=(sender,))
            del sender
            thread.start()
            thread.join()
            """)
        request = model.request(INPUT0=row)

        def refuse_outputs(request, response):
            if response.outputs:
                raise ValueError("not this shape")
            request.done = response.final
            request.context.append(response)

        request.responder = refuse_outputs
        model.run(request)
        (response,) = request.context
        assert "answered request" in response.error.message

    def test_a_sender_that_was_only_looked_at_does_no_harm(self, models, row):
        model = models.execute(f"assert not requests[0].get_response_sender().is_cancelled()\n{ECHO}")
        request = model.request(INPUT0=row)
        model.run(request)
        assert [response.error for response in request.context] == [None]

    @pytest.mark.parametrize(
        ("calls", "message"),
        [
            ("s.send(None, 0)", "Inference Response object must be provided when the response flags is set to zero."),
            ("s.send(None, 9)", "Unable to send response. Unsupported flag provided."),
            (
                "s.send(flags=1)",
                "Unable to send response. Non-decoupled model cannot send complete final before sending a response.",
            ),
            (
                "s.send(answer); s.send(answer)",
                "Unable to send response. Non-decoupled model cannot send more than one response.",
            ),
            ("s.send(answer, 1); s.send(flags=1)", "Unable to send response. Response sender has been closed."),
        ],
    )
    def test_refuses_what_a_model_with_one_response_cannot_send(self, models, row, calls, message):
        model = models.execute(
            f"""
            s = requests[0].get_response_sender()
            answer = pb_utils.InferenceResponse([])
            {calls}
            """
        )
        with pytest.raises(InternalError) as caught:
            model.instances[0].execute([model.request(INPUT0=row)])
        assert f"message: TritonModelException: {message}" in caught.value.message

    def test_a_response_then_the_final_flag_alone(self, models, row):
        model = models.execute(
            """
            s = requests[0].get_response_sender()
            s.send(pb_utils.InferenceResponse([]))
            s.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            """
        )
        request = model.request(INPUT0=row)
        model.run(request)
        assert [response.final for response in request.context] == [True]


class TestDecoupled:
    CONFIG = STRINGS + "model_transaction_policy { decoupled: true }"

    def test_any_number_of_responses(self, models):
        model = models.execute(
            """
            s = requests[0].get_response_sender()
            for word in requests[0].inputs()[0].as_numpy()[0]:
                s.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", np.array([[word]], dtype=object))]))
            s.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            """,
            self.CONFIG,
        )
        request = model.request(INPUT0=np.array([[b"a", b"b"]], dtype=object))
        model.run(request)
        assert [response.final for response in request.context] == [False, False, True]
        assert [response.outputs[0].numpy().item() for response in request.context[:2]] == [b"a", b"b"]

    def test_must_not_return_responses(self, models):
        model = models.execute("return [pb_utils.InferenceResponse([])]", self.CONFIG)
        with pytest.raises(InternalError, match="decoupled mode and the execute function must return None"):
            model(INPUT0=np.array([[b""]], dtype=object))

    def test_a_sender_that_goes_away_open_ends_with_an_error(self, models):
        model = models.execute("requests[0].get_response_sender().send(pb_utils.InferenceResponse([]))", self.CONFIG)
        request = model.request(INPUT0=np.array([[b""]], dtype=object))
        model.run(request)
        first, last = request.context
        assert not first.final
        assert last.final
        assert isinstance(last.error, InternalError)
