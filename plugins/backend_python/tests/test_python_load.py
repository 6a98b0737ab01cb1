"""Loading, initializing, completing and closing Triton's Python models. Messages were compared with Triton 2.51."""

from __future__ import annotations

import gc
import json
import sys
import weakref

import numpy as np
import pytest
from trivet.config import to_dict
from trivet.errors import InternalError, InvalidArgumentError, UnimplementedError

ECHO = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        {methods}

        def execute(self, requests):
            tensors = [pb_utils.Tensor("OUTPUT0", request.inputs()[0].as_numpy()) for request in requests]
            return [pb_utils.InferenceResponse([tensor]) for tensor in tensors]
"""

ECHO_TENSORS = """
    input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [-1] }]
"""


def echo(methods: str = "pass", indent: int = 8) -> str:
    return ECHO.replace("{methods}", methods.replace("\n", "\n" + " " * indent))


def completing(*calls: str) -> str:
    body = "\n".join(f"    {call}" for call in calls)
    return echo(f"@staticmethod\ndef auto_complete_config(config):\n{body}\n    return config")


class TestInitialize:
    def test_gets_tritons_arguments(self, models):
        source = echo("def initialize(self, args):\n    self.args = args")
        model = models.run("mine", source)
        args = model.instances[0]._model.args
        config = json.loads(args.pop("model_config"))
        assert args == {
            "model_instance_kind": "CPU",
            "model_instance_name": "mine_0_0",
            "model_instance_device_id": "0",
            "model_repository": str(models.root / "mine"),
            "model_version": "1",
            "model_name": "mine",
        }
        assert config["input"][0]["dims"] == [-1]
        assert config["max_batch_size"] == 8

    def test_may_be_missing(self, models, row):
        assert models.run("m", echo())(INPUT0=row)

    @pytest.mark.parametrize(
        ("methods", "where"),
        [
            ("def initialize(self, args):\n    raise ValueError('boom')", "initialize"),
            ("def __init__(self):\n    raise ValueError('boom')", "__init__"),
        ],
    )
    def test_an_exception_fails_the_load(self, models, methods, where):
        with pytest.raises(InternalError) as caught:
            models.run("m", echo(methods))
        path = models.root / "m" / "1" / "model.py"
        assert caught.value.message == f"ValueError: boom\n\nAt:\n  {path}(6): {where}\n"
        assert not models.left()


class TestFinalize:
    def test_is_called_once(self, models, tmp_path):
        log = str(tmp_path / "log")
        methods = f"""
def initialize(self, args):
    self.log = open({log!r}, "a")

def finalize(self):
    print("done", file=self.log)
    self.log.close()"""
        model = models.run("m", echo(methods))
        model.close()
        assert (tmp_path / "log").read_text() == "done\n"

    def test_an_exception_still_frees_the_model(self, models):
        model = models.run("m", echo("def finalize(self):\n    raise ValueError('late')"))
        with pytest.raises(ValueError, match="late"):
            model.close()
        assert not models.left()


class TestBrokenCode:
    def test_syntax_error(self, models):
        with pytest.raises(InternalError, match=r"^SyntaxError: invalid syntax.*\(model\.py, line 3\)"):
            models.run("m", "\nclass TritonPythonModel:\n  def execute(self requests): pass\n")

    def test_exception_at_import(self, models):
        with pytest.raises(InternalError) as caught:
            models.run("m", "import nothing_like_this")
        path = models.root / "m" / "1" / "model.py"
        assert caught.value.message == (
            f"ModuleNotFoundError: No module named 'nothing_like_this'\n\nAt:\n  {path}(1): <module>\n"
        )

    def test_no_class(self, models):
        with pytest.raises(InternalError, match=r"module '1\.model' has no attribute 'TritonPythonModel'; define"):
            models.run("m", "x = 1")

    def test_no_execute(self, models):
        with pytest.raises(InternalError, match=r"Python model .*model\.py does not implement `execute` method\."):
            models.run("m", "class TritonPythonModel: pass")

    def test_no_file(self, models):
        models.write("m", None)
        with pytest.raises(InvalidArgumentError, match=r"model 'm' has no file '.*/m/1/model\.py'; put"):
            models.load("m")

    def test_another_file_name(self, models, row):
        config = f'backend: "python" max_batch_size: 8 default_model_filename: "code/main.py" {ECHO_TENSORS}'
        models.write("m", None, config, {"code/main.py": echo()})
        assert models.load("m")(INPUT0=row)


class TestAutoComplete:
    def test_fills_in_everything(self, models):
        source = completing(
            'config.add_input({"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1], "optional": True})',
            'config.add_output({"name": "OUTPUT0", "data_type": "TYPE_STRING", "dims": [2, 3]})',
            "config.set_max_batch_size(4)",
            "config.set_dynamic_batching()",
            'config.set_model_transaction_policy({"decoupled": True})',
        )
        models.write("m", source, 'backend: "python"')
        config = to_dict(models.context("m").config)
        assert config["input"][0]["data_type"] == "TYPE_FP32"
        assert config["input"][0]["optional"]
        assert config["output"][0]["dims"] == [2, 3]
        assert config["max_batch_size"] == 4
        assert config["dynamic_batching"]["preferred_batch_size"] == [4]
        assert config["model_transaction_policy"] == {"decoupled": True}

    def test_sees_the_defaults(self, models):
        source = completing('assert config.as_dict()["instance_group"] == [{"count": 1}], config.as_dict()')
        with pytest.raises(InternalError, match=r"'instance_group': \[\{'name': 'm', 'kind': 'KIND_") as caught:
            models.run("m", source)
        assert "'default_model_filename': 'model.py'" in caught.value.message

    def test_completes_a_tensor_that_lacks_something(self, models):
        models.write(
            "m",
            completing('config.add_input({"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]})'),
            'backend: "python" input [{ name: "INPUT0" }] output [{ name: "O" data_type: TYPE_FP32 dims: [1] }]',
        )
        assert to_dict(models.context("m").config)["input"][0]["data_type"] == "TYPE_FP32"

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                "config.set_max_batch_size(4)",
                (
                    "configuration specified max_batch_size 8, but in auto-complete-config function for model 'm'"
                    " specified max_batch_size 4"
                ),
            ),
            (
                'config.add_input({"name": "INPUT0", "data_type": "TYPE_INT32", "dims": [-1]})',
                (
                    "unable to load model 'm', configuration expects datatype TYPE_FP32 for input 'INPUT0', model"
                    " provides TYPE_INT32"
                ),
            ),
            (
                'config.add_output({"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [3]})',
                (
                    "model 'm', tensor 'OUTPUT0': the model expects dims [3] but the model configuration specifies dims"
                    " [-1]"
                ),
            ),
            (
                'config.add_input({"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1], "optional": True})',
                (
                    "model 'm', tensor 'INPUT0': the model expects optional True but the model configuration specifies"
                    " optional False"
                ),
            ),
            (
                'config.add_input({"name": "I", "data_type": "TYPE_FP32"})',
                "input 'I' in auto-complete-config function for model 'm' is missing 'dims' property.",
            ),
            (
                'config.add_output({"data_type": "TYPE_FP32", "dims": []})',
                "output in auto-complete-config function for model 'm' is missing 'name' property.",
            ),
            (
                'config.add_output({"name": "O", "data_type": "TYPE_FP32", "dims": [1], "optional": True})',
                (
                    "output 'O' in auto-complete-config function for model 'm' contains property other than 'name',"
                    " 'data_type' and 'dims'."
                ),
            ),
            (
                'config.set_model_transaction_policy({"other": 1})',
                (
                    "model transaction property in auto-complete-config function for model 'm' contains property other"
                    " than 'decoupled'."
                ),
            ),
        ],
    )
    def test_what_contradicts_the_configuration(self, models, call, message):
        with pytest.raises(InternalError) as caught:
            models.run("m", completing(call))
        path = models.root / "m" / "1" / "model.py"
        assert caught.value.message == f"ValueError: {message}\n\nAt:\n  {path}(7): auto_complete_config\n"

    def test_decoupled_cannot_be_changed(self, models):
        config = f'backend: "python" max_batch_size: 8 {ECHO_TENSORS} model_transaction_policy {{ decoupled: false }}'
        with pytest.raises(InternalError, match=r"trying to change decoupled property .* already set to 'False'"):
            models.run("m", completing('config.set_model_transaction_policy({"decoupled": True})'), config)

    def test_another_scheduler_stays(self, models):
        config = f'backend: "python" max_batch_size: 8 {ECHO_TENSORS} sequence_batching {{ }}'
        with pytest.raises(InternalError, match="scheduling_choice as 'sequence_batching', but"):
            models.run("m", completing("config.set_dynamic_batching()"), config)

    @pytest.mark.parametrize("result", ["None", "5"])
    def test_must_return_its_argument(self, models, result):
        with pytest.raises(
            InternalError, match=r"^auto_complete_config function in model 'm' must return a valid pb\."
        ):
            models.run("m", echo(f"@staticmethod\ndef auto_complete_config(config):\n    return {result}"))

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            ('{"name": "I", "data_type": "FP32", "dims": [1]}', "the data_type 'FP32'; expected one of TYPE_BOOL"),
            ('{"name": "I", "data_type": "TYPE_FP32", "dims": 5}', "the dims 5; expected a list of integers"),
        ],
    )
    def test_a_value_that_no_configuration_has(self, models, tensor, message):
        with pytest.raises(InvalidArgumentError, match=message):
            models.run("m", completing(f"config.add_input({tensor})"))

    def test_other_changes_are_named_in_the_log(self, models, caplog):
        models.run("m", completing('config.as_dict()["instance_group"] = [{"count": 2}]'))
        assert any("'instance_group'" in record.getMessage() for record in caplog.records)


class TestParameters:
    def config(self, key: str, value: str) -> str:
        return (
            f'backend: "python" max_batch_size: 8 {ECHO_TENSORS}'
            f' parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        )

    def test_an_environment_of_its_own_is_refused(self, models):
        with pytest.raises(UnimplementedError, match="'m' sets the parameter EXECUTION_ENV_PATH"):
            models.run("m", echo(), self.config("EXECUTION_ENV_PATH", "/env.tar.gz"))

    @pytest.mark.parametrize("value", ["yes", "no"])
    def test_force_cpu_only_input_tensors(self, models, row, value):
        assert models.run("m", echo(), self.config("FORCE_CPU_ONLY_INPUT_TENSORS", value))(INPUT0=row)

    def test_force_cpu_only_input_tensors_with_another_value(self, models):
        with pytest.raises(InvalidArgumentError, match="to 'maybe', expected 'yes' or 'no'"):
            models.run("m", echo(), self.config("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe"))

    def test_options_without_effect_are_named_once(self, models, caplog):
        models.write("m", echo())
        options = {"shm-default-byte-size": "1", "unheard-of": "2", "min-compute-capability": "6.0"}
        models.load("m", options=options)
        models.load("m", options=options)
        messages = [r.getMessage() for r in caplog.records if "has no effect" in r.getMessage()]
        assert messages == [
            "--backend-config=python,shm-default-byte-size has no effect: models run in the server's own process",
            "--backend-config=python,unheard-of has no effect: trivet-backend-python has no option of this name",
        ]


class TestModules:
    def test_what_lies_beside_the_model_is_found(self, models, row):
        source = """
            import numpy as np
            import triton_python_backend_utils as pb_utils
            import helper
            import pack.sub
            import pack.sub as sub
            from pack import sub as same
            from .helper import VALUE
            import common

            class TritonPythonModel:
                def execute(self, requests):
                    import late
                    total = helper.VALUE + pack.sub.VALUE + late.VALUE + common.VALUE
                    assert VALUE == helper.VALUE and same is sub is pack.sub
                    out = np.array([[total]], np.float32)
                    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", out)])]
        """
        models.write(
            "m",
            source,
            files={
                "helper.py": "VALUE = 1",
                "pack/__init__.py": "",
                "pack/sub.py": "from helper import VALUE as H\nVALUE = H + 1",
                "late.py": "VALUE = 4",
                "../common.py": "VALUE = 8",
            },
        )
        assert models.load("m")(INPUT0=row)["OUTPUT0"] == 15
        assert "helper" not in sys.modules
        assert not list(models.root.rglob("__pycache__"))

    def test_models_with_helpers_of_one_name_do_not_meet(self, models, row):
        source = """
            import os, sys
            sys.path.append(os.path.dirname(__file__))  # as many models do
            import numpy as np
            import triton_python_backend_utils as pb_utils
            import helper

            class TritonPythonModel:
                def execute(self, requests):
                    out = np.array([[helper.VALUE]], np.float32)
                    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", out)])]
        """
        before = list(sys.path)
        try:
            one = models.run("one", source, files={"helper.py": "VALUE = 1"})
            two = models.run("two", source, files={"helper.py": "VALUE = 2"})
            assert one(INPUT0=row)["OUTPUT0"] == 1
            assert two(INPUT0=row)["OUTPUT0"] == 2
        finally:
            sys.path[:] = before

    def test_installed_packages_come_first_as_in_triton(self, models, row):
        source = echo().replace("import triton", "import json, numpy; json.dumps, numpy.add\n    import triton", 1)
        files = {"json.py": "raise ValueError", "numpy.py": "raise ValueError"}
        assert models.run("m", source, files=files)(INPUT0=row)

    def test_a_data_folder_does_not_hide_a_package(self, models):
        models.write("m", "import pytest\nassert pytest.raises\n" + "import triton_python_backend_utils as pb_utils\n")
        (models.root / "m" / "1" / "pytest").mkdir()
        with pytest.raises(InternalError, match="no attribute 'TritonPythonModel'"):
            models.load("m")

    def test_a_folder_without_init_is_a_package(self, models, row):
        source = echo().replace(
            "import triton", "import loose.part; assert loose.part.VALUE == 3\n    import triton", 1
        )
        assert models.run("m", source, files={"loose/part.py": "VALUE = 3"})(INPUT0=row)

    def test_each_instance_has_globals_of_its_own(self, models, row):
        source = """
            import numpy as np
            import triton_python_backend_utils as pb_utils
            calls = 0

            class TritonPythonModel:
                def execute(self, requests):
                    global calls
                    calls += 1
                    out = np.array([[calls]], np.float32)
                    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", out)])]
        """
        model = models.run("m", source, instances=2)
        results = [model.run(model.request(INPUT0=row), instance=i)[0].outputs[0].numpy().item() for i in (0, 0, 1)]
        assert results == [1, 2, 1]

    def test_a_reload_gets_the_new_code(self, models, row):
        # Same size, and the same second: a bytecode cache would not tell them apart.
        for factor in (2, 3):
            source = echo().replace(".as_numpy())", f".as_numpy() * {factor})")
            np.testing.assert_array_equal(models.run("m", source)(INPUT0=row)["OUTPUT0"], row * factor)

    def test_closing_frees_what_the_code_held(self, models):
        source = echo().replace("import triton", "class Weights: pass\n    WEIGHTS = Weights()\n    import triton", 1)
        model = models.run("m", source)
        held = weakref.ref(sys.modules[type(model.instances[0]._model).__module__].WEIGHTS)
        gc.disable()
        try:
            model.close()
            assert held() is None
        finally:
            gc.enable()
        assert not models.left()

    def test_the_installed_module_is_the_models_module(self):
        import triton_python_backend_utils
        from trivet_backend_python import pb_utils

        assert set(pb_utils.__all__) <= set(vars(triton_python_backend_utils))
