"""Every name of ``triton_python_backend_utils``. Values and messages were compared with Triton 2.51."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.backend import ModelCaller
from trivet.datatypes import BF16, FP32
from trivet.errors import NotFoundError
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor as KernelTensor
from trivet_backend_python import pb_utils
from trivet_backend_python.pb_utils.request import ServedRequest, Service

CONFIG = {
    "input": [{"name": "I", "data_type": "TYPE_FP32"}],
    "output": [{"name": "O", "data_type": "TYPE_STRING"}],
}


class TestTensor:
    def test_is_a_view(self):
        array = np.ones((2, 3), np.float16)
        tensor = pb_utils.Tensor("a", array)
        assert tensor.name() == "a"
        assert tensor.shape() == [2, 3]
        assert tensor.triton_dtype() == 10
        assert tensor.is_cpu()
        assert tensor.as_numpy() is array
        assert repr(tensor) == "Tensor('a', FP16, [2, 3])"

    def test_is_made_contiguous(self):
        array = np.arange(6, dtype=np.float32).reshape(2, 3).T
        assert pb_utils.Tensor("a", array).as_numpy().flags.c_contiguous

    @pytest.mark.parametrize(
        "array", [np.ones(1, complex), np.ones(1, ">f4"), np.array(["text"]), np.zeros(1, "M8[s]")]
    )
    def test_refuses_a_dtype_that_triton_does_not_have(self, array):
        with pytest.raises(
            pb_utils.TritonModelException, match=r"^NumPy dtype is not supported\. Tensor 'a' has dtype"
        ):
            pb_utils.Tensor("a", array)

    def test_refuses_an_empty_name(self):
        with pytest.raises(pb_utils.TritonModelException, match="Tensor name cannot be an empty string"):
            pb_utils.Tensor("", np.ones(1))

    @pytest.mark.parametrize("value", [[1.0], 1.0, np.float32(1), None])
    def test_refuses_what_is_no_array(self, value):
        with pytest.raises(TypeError, match=r"Tensor 'a' takes a numpy\.ndarray, got"):
            pb_utils.Tensor("a", value)


class TestDLPack:
    def test_a_numpy_array_and_back(self):
        array = np.arange(6, dtype=np.int16).reshape(2, 3)
        tensor = pb_utils.Tensor.from_dlpack("a", array)
        assert (tensor.name(), tensor.shape(), tensor.triton_dtype(), tensor.is_cpu()) == ("a", [2, 3], 7, True)
        array[0, 0] = 9
        assert tensor.as_numpy()[0, 0] == 9
        assert tensor.__dlpack_device__() == (1, 0)
        assert np.shares_memory(np.from_dlpack(pb_utils.Tensor("a", array)), array)

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "int8", "int64", "float16", "float32", "float64"])
    def test_every_type(self, dtype):
        array = np.ones(2, dtype)
        again = pb_utils.Tensor.from_dlpack("a", pb_utils.Tensor("a", array)).as_numpy()
        assert again.dtype == array.dtype
        assert again.tolist() == array.tolist()

    def test_capsules(self):
        array = np.arange(3, dtype=np.float64)
        capsule = pb_utils.Tensor("a", array).to_dlpack()
        assert type(capsule).__name__ == "PyCapsule"
        assert pb_utils.Tensor.from_dlpack("b", capsule).as_numpy().tolist() == [0, 1, 2]

    @pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (2, 1, 3)])
    def test_shapes(self, shape):
        assert pb_utils.Tensor.from_dlpack("a", np.zeros(shape, np.float32)).shape() == list(shape)

    def test_refuses_gaps(self):
        with pytest.raises(pb_utils.TritonModelException, match="DLPack tensor is not contiguous"):
            pb_utils.Tensor.from_dlpack("a", np.ones((2, 3), np.float32).T)

    def test_refuses_other_objects(self):
        with pytest.raises(pb_utils.TritonModelException, match="Tensor must be a DLPack capsule or have `__dlpack__`"):
            pb_utils.Tensor.from_dlpack("a", 5)

    def test_refuses_element_types_that_triton_does_not_have(self):
        with pytest.raises(pb_utils.TritonModelException, match="an element type that no Triton tensor has"):
            pb_utils.Tensor.from_dlpack("a", np.ones(2, np.complex64))

    def test_strings_have_none(self):
        with pytest.raises(pb_utils.TritonModelException, match="DLPack does not have support for string tensors"):
            pb_utils.Tensor("a", np.array([b"x"], dtype=object)).to_dlpack()

    def test_bf16_input_to_torch_and_back(self):
        torch = pytest.importorskip("torch")
        bits = np.array([0x3F80, 0x4000], np.uint16)
        tensor = pb_utils.Tensor._of(KernelTensor.from_wire("a", BF16, (2,), bits.tobytes()), to_host=True)
        with pytest.raises(pb_utils.TritonModelException, match="BF16, which NumPy does not have; use to_dlpack"):
            tensor.as_numpy()
        values = torch.from_dlpack(tensor)
        assert values.dtype is torch.bfloat16
        assert values.tolist() == [1, 2]
        output = pb_utils.Tensor.from_dlpack("o", values * 2)
        assert output.triton_dtype() == 14
        assert torch.from_dlpack(output).tolist() == [2, 4]

    def test_torch_tensors(self):
        torch = pytest.importorskip("torch")
        values = torch.arange(3, dtype=torch.float32)
        tensor = pb_utils.Tensor.from_dlpack("a", values)
        assert tensor.as_numpy().tolist() == [0, 1, 2]
        assert torch.from_dlpack(tensor).tolist() == [0, 1, 2]
        assert torch.utils.dlpack.from_dlpack(tensor.to_dlpack()).tolist() == [0, 1, 2]
        with pytest.raises(pb_utils.TritonModelException, match="not contiguous"):
            pb_utils.Tensor.from_dlpack("a", torch.ones(2, 3).T)


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

    def test_cannot_be_rescheduled_yet(self, models, row):
        request, _ = self.served(models, row)
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
        with pytest.raises(pb_utils.TritonModelException, match=r"RELEASE_RESCHEDULE.*not supported"):
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        with pytest.raises(pb_utils.TritonModelException, match="unknown release flags 7"):
            request.set_release_flags(7)

    def test_cannot_be_run_again(self, models, row):
        request, _ = self.served(models, row)
        for run in (request.exec, request.async_exec):
            with pytest.raises(pb_utils.TritonModelException, match="make a new InferenceRequest"):
                run()


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
        "fields", [{"inputs": None}, {"model_name": None}, {"inputs": [5]}, {"preferred_memory": 5}, {"parameters": 5}]
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

    def test_decoupled_calls_are_not_there_yet(self):
        with pytest.raises(pb_utils.TritonModelException, match=r"exec\(decoupled=True\) is not supported"):
            self.make().exec(decoupled=True)


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

    def is_ready(self, name, version=""):
        return name == "other"


class TestCallingOtherModels:
    def run(self, models, row, body, **replaced):
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


class TestServer:
    def test_get_model_dir(self, models, row):
        model = models.execute("self.dir = pb_utils.get_model_dir(); return [pb_utils.InferenceResponse([])]")
        model(INPUT0=row)
        assert model.instances[0]._model.dir == str(models.root / "m" / "1")

    def test_get_model_dir_on_a_models_own_thread(self, models, row):
        model = models.execute(
            """
            import threading
            def look():
                self.dir = pb_utils.get_model_dir()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return [pb_utils.InferenceResponse([])]
            """
        )
        model(INPUT0=row)
        assert model.instances[0]._model.dir == str(models.root / "m" / "1")

    def test_outside_of_a_model(self):
        with pytest.raises(pb_utils.TritonModelException, match=r"get_model_dir\(\) works only in the code of a model"):
            pb_utils.get_model_dir()

    @pytest.mark.parametrize(
        "call",
        [
            lambda: pb_utils.load_model("x"),
            lambda: pb_utils.unload_model("x"),
            lambda: pb_utils.MetricFamily("x", "", pb_utils.MetricFamily.COUNTER),
        ],
    )
    def test_what_is_not_there_yet_says_so(self, call):
        with pytest.raises(pb_utils.TritonModelException, match=r"x.* is not supported by trivet-backend-python yet"):
            call()


class TestLogger:
    def test_writes_to_the_models_log(self, models, row, caplog):
        caplog.set_level(logging.DEBUG)
        model = models.execute(
            """
            pb_utils.Logger.log_info("one %s")
            pb_utils.Logger.log_warn("two")
            pb_utils.Logger.log_error("three")
            pb_utils.Logger.log_verbose("four")
            pb_utils.Logger.log("five")
            pb_utils.Logger.log("six", pb_utils.Logger.LogLevel.ERROR)
            return [pb_utils.InferenceResponse([])]
            """
        )
        model(INPUT0=row)
        records = [r for r in caplog.records if r.name == "trivet.model.m"]
        assert [(r.levelname, r.getMessage()) for r in records] == [
            ("INFO", "one %s"),
            ("WARNING", "two"),
            ("ERROR", "three"),
            ("DEBUG", "four"),
            ("INFO", "five"),
            ("ERROR", "six"),
        ]
        assert [(r.filename, r.lineno) for r in records] == [("model.py", line) for line in range(6, 12)]

    def test_refuses_other_types(self):
        with pytest.raises(TypeError, match="Logger takes a str, got int"):
            pb_utils.Logger.log_warn(5)
        with pytest.raises(TypeError, match="Logger takes a level"):
            pb_utils.Logger.log("x", 20)


class TestErrorsAndResponses:
    def test_error(self):
        error = pb_utils.TritonError("m")
        assert error.message() == "m"
        assert error.code() == pb_utils.TritonError.INTERNAL == 1
        assert repr(error) == "TritonError('m', INTERNAL)"

    @pytest.mark.parametrize("arguments", [(5,), ("m", 2)])
    def test_error_refuses_other_types(self, arguments):
        with pytest.raises(TypeError, match="TritonError: "):
            pb_utils.TritonError(*arguments)

    def test_response(self):
        tensor = pb_utils.Tensor("O", np.ones(1, np.float32))
        response = pb_utils.InferenceResponse([tensor])
        assert response.output_tensors() == [tensor]
        assert not response.has_error()
        assert response.error() is None
        assert response.parameters() == "{}"
        assert pb_utils.get_output_tensor_by_name(response, "O") is tensor
        assert pb_utils.get_output_tensor_by_name(response, "P") is None

    def test_response_refuses_none(self):
        with pytest.raises(
            pb_utils.TritonModelException, match="Output tensor for inference response should not be empty"
        ):
            pb_utils.InferenceResponse([None])

    @pytest.mark.parametrize("tensors", [pb_utils.Tensor("O", np.ones(1)), [np.ones(1)], 5])
    def test_response_refuses_other_types(self, tensors):
        with pytest.raises(TypeError):
            pb_utils.InferenceResponse(tensors)


class TestDataTypes:
    def test_names(self):
        assert pb_utils.triton_string_to_numpy("TYPE_FP32") is np.float32
        assert pb_utils.triton_string_to_numpy("TYPE_BOOL") is bool
        assert pb_utils.triton_string_to_numpy("TYPE_STRING") is np.object_
        assert len(pb_utils.TRITON_STRING_TO_NUMPY) == 13
        with pytest.raises(KeyError, match="TYPE_X"):
            pb_utils.triton_string_to_numpy("TYPE_X")

    def test_numbers(self):
        for number in range(1, 14):
            assert pb_utils.numpy_to_triton_type(pb_utils.triton_to_numpy_type(number)) == number
        assert pb_utils.triton_to_numpy_type(FP32.config_value) is np.float32
        assert pb_utils.triton_to_numpy_type(99) is None
        assert pb_utils.numpy_to_triton_type(np.bytes_) == 13
        assert pb_utils.numpy_to_triton_type(np.dtype("int64")) == 9
        assert pb_utils.numpy_to_triton_type(np.complex64) is None

    @given(st.lists(st.binary(max_size=20)))
    def test_strings_come_back(self, items):
        array = np.empty(len(items), dtype=object)
        array[:] = items
        encoded = pb_utils.serialize_byte_tensor(array)
        if not items:
            assert encoded == ()
            return
        assert pb_utils.deserialize_bytes_tensor(encoded).tolist() == items
        assert pb_utils.deserialize_bytes_tensor(np.frombuffer(encoded, np.uint8)).tolist() == items

    def test_serialize_other_arrays(self):
        assert pb_utils.serialize_byte_tensor(np.ones(1)) is None
        assert pb_utils.serialize_byte_tensor(np.array(["é"], dtype=object)) == b"\2\0\0\0" + "é".encode()

    def test_deserialize_truncated(self):
        with pytest.raises(ValueError, match="element 0 ends at byte 9, but there are only 5 bytes"):
            pb_utils.deserialize_bytes_tensor(b"\5\0\0\0a")

    def test_config_lookup(self):
        assert pb_utils.get_input_config_by_name(CONFIG, "I") is CONFIG["input"][0]
        assert pb_utils.get_output_config_by_name(CONFIG, "O") is CONFIG["output"][0]
        assert pb_utils.get_input_config_by_name(CONFIG, "O") is None
        assert pb_utils.get_output_config_by_name({}, "O") is None

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [({}, False), ({"model_transaction_policy": {"decoupled": True}}, True)],
    )
    def test_decoupled(self, policy, expected):
        assert pb_utils.using_decoupled_model_transaction_policy(policy) is expected

    def test_constants(self):
        assert pb_utils.TRITONSERVER_MEMORY_GPU == 0
        assert pb_utils.TRITONSERVER_MEMORY_CPU == 1
        assert pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL == 1
