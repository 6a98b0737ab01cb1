"""Models that are a function or a class with typed arrays."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from trivet.config import to_dict
from trivet.errors import InternalError, InvalidArgumentError
from trivet_backend_python import Array, Bool, Float32, Int64, Text, model
from trivet_backend_python.typed.signature import find_model

BARE = 'backend: "python"'

DOUBLE = """
    from trivet_backend_python import Array, Float32, model

    @model(max_batch_size=8)
    def double(x: Array[Float32, "n"]) -> Array[Float32, "n"]:
        return 2 * x
"""

EVERYTHING = """
    from __future__ import annotations
    from typing import NamedTuple
    import numpy as np
    from trivet_backend_python import Array, Bytes, Context, Float32, Int64, Text, model

    class Result(NamedTuple):
        total: Float32
        names: Array[Text, "k"]

    @model(max_batch_size=4)
    class Everything:
        def __init__(self, context: Context) -> None:
            self.context = context
            self.calls = 0

        def __call__(self, x: Array[Float32, "n", 2], raw: Array[Bytes, "k"], word: Text | None = None) -> Result:
            self.calls += 1
            names = [[b.decode() + (w or "") for b in row]
                     for row, w in zip(raw, word if word is not None else [None] * len(raw))]
            return Result(x.sum(axis=(1, 2)), names)

        def close(self) -> None:
            self.context.parameters["log"].append(self.calls)
"""


class TestFunction:
    def test_runs_with_no_configuration_file_content(self, models):
        double = models.run("double", DOUBLE, BARE)
        config = to_dict(double.context.config)
        assert config["max_batch_size"] == 8
        assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("x", "TYPE_FP32", [-1])]
        assert [(t["name"], t["data_type"], t["dims"]) for t in config["output"]] == [("output", "TYPE_FP32", [-1])]
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        np.testing.assert_array_equal(double(x=x)["output"], 2 * x)

    def test_gets_one_array_for_a_batch(self, models):
        double = models.run("double", DOUBLE, BARE)
        first, second = double.run(
            double.request(x=np.ones((1, 2), np.float32)), double.request(x=np.zeros((3, 2), np.float32))
        )
        assert first.outputs[0].numpy().tolist() == [[2, 2]]
        assert second.outputs[0].numpy().shape == (3, 2)

    def test_stays_a_plain_function(self):
        @model
        def add(a: Float32, b: Float32) -> Float32:
            return a + b

        assert add(1, 2) == 3

    def test_without_a_batch(self, models):
        source = """
            from trivet_backend_python import Array, Int64, model

            @model
            def shape(x: Array[Int64, "a", "b"]) -> Array[Int64, 2]:
                return x.shape
        """
        assert models.run("m", source, BARE)(x=np.zeros((3, 4), np.int64))["output"].tolist() == [3, 4]

    @pytest.mark.parametrize(("batch", "value"), [(0, "3.5"), (2, "x")])
    def test_scalars(self, models, batch, value):
        source = f"""
            from trivet_backend_python import Float64, model

            @model(max_batch_size={batch})
            def f(x: Float64) -> Float64:
                assert x.shape == {(2,) if batch else ()}
                return {value}
        """
        running = models.run("m", source, BARE)
        (config,) = to_dict(running.context.config)["input"]
        assert (config["dims"], config.get("reshape")) == ([1], {"shape": []} if batch else None)
        given = np.full((2, 1) if batch else (1,), 3.5)
        assert running(x=given)["output"].tolist() == given.tolist()

    def test_results_are_converted_where_nothing_much_is_lost(self, models):
        source = DOUBLE.replace("2 * x", "(2 * x).astype('float64')")
        assert models.run("m", source, BARE)(x=np.ones((1, 1), np.float32))["output"].dtype == np.float32

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ("x > 0 if x[0, 0] < 0 else x + 1j", "output 'output' of model 'm' has dtype complex64, which does not"),
            ("x[:, 0]", r"output 'output' of model 'm' has shape \[1\], expected \[1, n\]"),
            ("[[1.0], [2.0]]", r"has shape \[2, 1\], expected \[1, n\]"),
        ],
    )
    def test_results_that_are_not_what_was_declared(self, models, result, message):
        running = models.run("m", DOUBLE.replace("2 * x", result), BARE)
        with pytest.raises(InternalError, match=message):
            running(x=np.ones((1, 1), np.float32))

    def test_inputs_cannot_be_written(self, models):
        source = DOUBLE.replace("return 2 * x", "x *= 2\n        return x")
        running = models.run("m", source, BARE)
        with pytest.raises(ValueError, match="read-only"):
            running(wire=False, x=np.ones((1, 1), np.float32))

    @pytest.mark.parametrize("size", [4, 100_000])
    def test_a_result_that_is_kept_is_copied(self, models, size):
        source = f"""
            import numpy as np
            from trivet_backend_python import Array, Float32, model
            kept = np.zeros((1, {size}), np.float32)

            @model(max_batch_size=1)
            def f(x: Array[Float32, 1]) -> Array[Float32, {size}]:
                kept[:] += x
                return kept
        """
        running = models.run("m", source, BARE)
        one = np.ones((1, 1), np.float32)
        first = running(x=one)["output"]
        running(x=one)
        assert set(first.flat) == {1}

    def test_a_result_that_is_let_go_is_not_copied(self, models):
        source = """
            import numpy as np
            from trivet_backend_python import Array, Float32, model
            address = 0

            @model
            def f(x: Array[Float32, 1]) -> Array[Float32, "n"]:
                global address
                made = np.zeros(100_000, np.float32)
                address = made.__array_interface__["data"][0]
                return made
        """
        running = models.run("m", source, BARE)
        output = running(x=np.ones(1, np.float32))["output"]
        module = sys.modules[running.instances[0]._calls._call.__module__]
        assert output.__array_interface__["data"][0] == module.address

    def test_dimensions_of_one_name_have_one_size(self, models):
        source = """
            from trivet_backend_python import Array, Float32, model

            @model(max_batch_size=2)
            def add(a: Array[Float32, "n"], b: Array[Float32, 2, "n"]) -> Array[Float32, 2, "n"]:
                return a[:, None] + b
        """
        running = models.run("m", source, BARE)
        a, b = np.ones((1, 3), np.float32), np.ones((1, 2, 3), np.float32)
        assert running(a=a, b=b)["output"].shape == (1, 2, 3)
        with pytest.raises(InvalidArgumentError, match="'m' disagree on dimension 'n': 3 in 'a', 4 in 'b'"):
            running(a=a, b=np.ones((1, 2, 4), np.float32))


class TestClass:
    def test_state_text_optional_inputs_and_named_outputs(self, models):
        running = models.run("m", EVERYTHING, BARE, instances=2)
        inputs = to_dict(running.context.config)["input"]
        assert [(t["name"], t["dims"], t["optional"]) for t in inputs] == [
            ("x", [-1, 2], False),
            ("raw", [-1], False),
            ("word", [1], True),
        ]
        x = np.ones((2, 3, 2), np.float32)
        raw = np.array([[b"a"], [b"b"]], dtype=object)
        result = running(x=x, raw=raw)
        assert result["total"].tolist() == [[6], [6]]
        assert result["names"].tolist() == [[b"a"], [b"b"]]
        word = np.array([["é".encode()], [b"!"]], dtype=object)
        assert running(x=x, raw=raw, word=word)["names"].tolist() == [["aé".encode()], [b"b!"]]

        first, second = (instance._calls._call for instance in running.instances)
        assert (first.calls, second.calls) == (2, 0)
        context = first.context
        assert (context.model_name, context.version, context.path) == ("m", 1, models.root / "m" / "1")
        assert (context.instance_name, context.kind, context.device_id) == ("m_0_0", "CPU", 0)
        log = context.parameters["log"] = second.context.parameters["log"] = []
        running.close()
        assert log == [0, 2]

    def test_bytes_that_are_not_text(self, models):
        running = models.run("m", EVERYTHING, BARE)
        with pytest.raises(InvalidArgumentError, match="input 'word' holds bytes that are not UTF-8 text"):
            running(
                x=np.ones((1, 1, 2), np.float32),
                raw=np.array([[b"a"]], dtype=object),
                word=np.array([[b"\xff"]], dtype=object),
            )
        running.instances[0]._calls._call.context.parameters["log"] = []

    def test_an_exception_at_construction(self, models):
        source = EVERYTHING.replace("self.calls = 0", "raise ValueError('no weights')")
        with pytest.raises(InternalError, match=r"^ValueError: no weights\n\nAt:\n  .*model\.py\(15\): __init__"):
            models.run("m", source, BARE)

    def test_a_result_that_is_no_named_tuple(self, models):
        running = models.run("m", EVERYTHING.replace("return Result(", "return (1, "), BARE)
        with pytest.raises(
            InternalError, match="returned tuple, expected the named tuple with the outputs total, names"
        ):
            running(x=np.ones((1, 1, 2), np.float32), raw=np.array([[b"a"]], dtype=object))
        running.instances[0]._calls._call.context.parameters["log"] = []

    def test_closing_frees_the_weights(self, models):
        source = """
            from trivet_backend_python import Array, Float32, model
            class Weights: pass

            @model
            class M:
                def __init__(self):
                    self.weights = Weights()
                def __call__(self, x: Array[Float32, 1]) -> Array[Float32, 1]:
                    return x
        """
        running = models.run("m", source, BARE)
        held = weakref.ref(running.instances[0]._calls._call.weights)
        gc.disable()
        try:
            running.close()
            assert held() is None
        finally:
            gc.enable()
        assert not models.left()


class TestConfiguration:
    def test_may_narrow(self, models):
        config = 'backend: "python" max_batch_size: 4 input [{ name: "x" data_type: TYPE_FP32 dims: [3] }]'
        running = models.run("m", DOUBLE, config)
        values = to_dict(running.context.config)
        assert (values["max_batch_size"], values["input"][0]["dims"]) == (4, [3])

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("max_batch_size: 9", r"max_batch_size of model 'm' is 9 .* marked @model\(max_batch_size=8\)"),
            (
                'input [{ name: "x" data_type: TYPE_INT32 dims: [-1] }]',
                r"input 'x' of model 'm' is TYPE_INT32 \[-1\] in its configuration and TYPE_FP32 \[n\] in its code",
            ),
            ('input [{ name: "x" data_type: TYPE_FP32 dims: [1, 2] }]', r"TYPE_FP32 \[1, 2\] in its configuration"),
            (
                'input [{ name: "y" data_type: TYPE_FP32 dims: [1] }]',
                r"the inputs of model 'm' are \['x', 'y'\] in its configuration and \['x'\] in its code",
            ),
        ],
    )
    def test_may_not_contradict(self, models, config, message):
        with pytest.raises(InvalidArgumentError, match=message):
            models.run("m", DOUBLE, f"{BARE} {config}")

    def test_is_checked_where_completion_is_off(self, models):
        models.write("m", DOUBLE, BARE)
        context = models.context("m")
        context.config.max_batch_size = 0
        with pytest.raises(InvalidArgumentError, match="max_batch_size of model 'm' is missing in its configuration"):
            models.backend.load(context)


class TestDeclaration:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def f(x) -> Float32: ...", r"parameter 'x' of f\(\) needs an annotation such as Array.*, got nothing"),
            ("def f(x: int) -> Float32: ...", r"got <class 'int'>"),
            ("def f(x: Float32): ...", r"the result of f\(\) needs an annotation"),
            ("def f(x: Array[Float32, 0]) -> Float32: ...", r"has the dimension 0; expected a size, or a name or -1"),
            ("def f(*x: Float32) -> Float32: ...", "must be an ordinary parameter"),
            ("def f() -> Float32: ...", "has no parameters"),
            ("async def f(x: Float32) -> Float32: ...", "must be a plain function"),
            ("class C: pass", "class C marked @model needs a method __call__"),
            (
                "class C:\n  def __init__(self, a, b): pass\n  def __call__(self, x: Float32) -> Float32: ...",
                "one argument",
            ),
        ],
    )
    def test_mistakes_say_what_was_expected(self, source, message):
        with pytest.raises(TypeError, match=message):
            exec(f"@model\n{source}", {"model": model, "Float32": Float32, "Array": Array})

    def test_a_negative_batch(self):
        with pytest.raises(TypeError, match="max_batch_size must not be negative"):
            exec("@model(max_batch_size=-1)\ndef f(x: Float32) -> Float32: ...", {"model": model, "Float32": Float32})

    def test_mistakes_become_the_reason_that_the_load_failed(self, models):
        with pytest.raises(InternalError, match=r"^TypeError: parameter 'x' of double\(\) needs .*\n\nAt:\n  .*\(4\)"):
            models.run("m", DOUBLE.replace('x: Array[Float32, "n"]', "x"), BARE)

    def test_one_model_in_a_file(self, models):
        with pytest.raises(InvalidArgumentError, match=r"model\.py holds 2 models: double, triple; expected one"):
            models.run("m", DOUBLE + DOUBLE.replace("double", "triple"), BARE)
        with pytest.raises(InvalidArgumentError, match="holds 2 models: double, TritonPythonModel; expected one"):
            models.run("m", DOUBLE + "\n    class TritonPythonModel: ...\n", BARE)

    def test_a_model_from_another_file(self, models):
        running = models.run("m", "from inner import double", BARE, files={"inner.py": DOUBLE})
        assert running(x=np.ones((1, 1), np.float32))["output"] == 2

    def test_all_annotations_mean_a_datatype(self):
        @model
        def f(a: Array[Int64, 2], b: Bool | None = None, *, c: Text = None) -> Array[Float32, "n", -1, 3]: ...  # noqa: F821, UP037

        class Module:
            __name__ = __name__

        module = Module()
        module.f = f
        signature = find_model(module)
        assert [str(tensor) for tensor in signature.inputs] == ["TYPE_INT64 [2]", "TYPE_BOOL []", "TYPE_STRING []"]
        assert [tensor.optional for tensor in signature.inputs] == [False, True, True]
        assert str(signature.outputs[0]) == "TYPE_FP32 [n, -1, 3]"
