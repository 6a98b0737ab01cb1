from __future__ import annotations

from pathlib import Path

import numpy as np
from tf_models import graphdef, save_double, tf, v1
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays


class _Doubles(BackendConformance):
    backend = "tensorflow"

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": np.random.default_rng(seed).random((rows, 4), np.float32)}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"y": 2 * inputs["x"]}


class TestSavedModel(_Doubles):
    def write_model(self, folder: Path) -> None:
        save_double(folder / "model.savedmodel")

    config = 'platform: "tensorflow_savedmodel"'


class TestSharedSession(TestSavedModel):
    config = """
        platform: "tensorflow_savedmodel"
        parameters { key: "MAX_SESSION_SHARE_COUNT" value { string_value: "2" } }
        parameters { key: "TF_NUM_INTER_THREADS" value { string_value: "1" } }
    """


class TestGraphDef(_Doubles):
    config = """
        platform: "tensorflow_graphdef"
        max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
    """

    def write_model(self, folder: Path) -> None:
        (folder / "model.graphdef").write_bytes(graphdef(self.build))

    def build(self) -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with tf.control_dependencies([tf.debugging.assert_non_negative(x)]):
            tf.multiply(x, 2.0, "y")

    def failing_inputs(self) -> Arrays:
        return {"x": np.full((1, 4), -1, np.float32)}
