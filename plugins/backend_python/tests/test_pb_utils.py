"""The other names of ``triton_python_backend_utils``. Values and messages were compared with Triton 2.51."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.datatypes import FP32
from trivet_backend_python import pb_utils

CONFIG = {
    "input": [{"name": "I", "data_type": "TYPE_FP32"}],
    "output": [{"name": "O", "data_type": "TYPE_STRING"}],
}


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

    @pytest.mark.parametrize(
        "call",
        [
            pb_utils.get_model_dir,
            lambda: pb_utils.is_model_ready("x"),
            lambda: pb_utils.load_model("x"),
            lambda: pb_utils.unload_model("x"),
            lambda: pb_utils.MetricFamily("x", "", pb_utils.MetricFamily.COUNTER),
        ],
    )
    def test_outside_of_a_model(self, call):
        with pytest.raises(pb_utils.TritonModelException, match=r" works? only in the code of a model"):
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
