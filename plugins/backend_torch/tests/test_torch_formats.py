"""Exported programs, compiled packages and eager models; and files that cannot be loaded."""

from __future__ import annotations

import gc
import shutil
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from trivet.backend import ArrayInstance, InstanceContext
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from trivet.private_code import PREFIX
from trivet.tensor import Tensor

Instance = Callable[..., ArrayInstance]

CODE = """
import torch
from layers import Layer

class Net(torch.nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.layer = Layer(4, width)

    def forward(self, x, by: int = 1):
        return {"y": self.layer(x) * by}
"""
LAYERS = "import torch\n\nclass Layer(torch.nn.Linear):\n    pass\n"
CONFIG = """max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
STATE = {"layer.weight": torch.arange(8, dtype=torch.float32).reshape(2, 4), "layer.bias": torch.tensor([1.0, -1.0])}
X = np.ones((3, 4), np.float32)
EXPECTED = [[7, 21]] * 3


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {value!r} }} }}\n'


def run(made: ArrayInstance, x: Any = X, output: str = "y") -> Any:
    return made.execute({"x": Tensor.from_numpy("x", x)}, [output])[output]


def save_state(path: Path) -> None:
    torch.save(STATE, path)


def eager(**more: Any) -> dict[str, Any]:
    return {"model.py": CODE, "layers.py": LAYERS, **more}


# --- eager


def test_a_class_and_its_state_dict(context: Any, instance: Instance) -> None:
    made = instance(context(eager(**{"model.pt": save_state}), CONFIG + 'runtime: "model.py"'))
    np.testing.assert_array_equal(run(made), EXPECTED)


def test_a_class_and_its_safetensors(context: Any, instance: Instance) -> None:
    files = eager(**{"model.safetensors": lambda path: safetensors.torch.save_file(STATE, path)})
    np.testing.assert_array_equal(run(instance(context(files, CONFIG))), EXPECTED)


def test_arguments_of_the_class(context: Any, instance: Instance) -> None:
    made = instance(context(eager(), CONFIG + parameter("MODEL_ARGUMENTS", '{"width": 5}')))
    assert run(made).shape == (3, 5)


def test_two_models_have_files_of_the_same_name(context: Any, instance: Instance) -> None:
    first = instance(context(eager(**{"model.pt": save_state}), CONFIG))
    doubled = LAYERS.replace("    pass", "    def forward(self, x):\n        return super().forward(x) * 2")
    files = {"model.py": CODE, "layers.py": doubled, "model.pt": save_state}
    second = instance(context(files, CONFIG, name="other"))
    np.testing.assert_array_equal(run(second), np.array(EXPECTED) * 2)
    np.testing.assert_array_equal(run(first), EXPECTED)


def test_several_classes_need_a_name(context: Any, instance: Instance) -> None:
    code = CODE.replace("from layers import Layer", LAYERS)
    files = {"model.py": code, "model.pt": save_state}
    with pytest.raises(
        InvalidArgumentError, match=r"(?s)defines 2 subclasses .*\(Layer, Net\); say which .*MODEL_CLASS"
    ):
        instance(context(files, CONFIG))
    np.testing.assert_array_equal(run(instance(context(files, CONFIG + parameter("MODEL_CLASS", "Net")))), EXPECTED)


def test_weights_of_another_class(context: Any, instance: Instance) -> None:
    files = eager(**{"model.pt": lambda path: torch.save({"a": torch.zeros(1)}, path)})
    with pytest.raises(
        InvalidArgumentError, match=r"(?s)the weights 'model.pt' are not those of the class: .*layer\.weight"
    ):
        instance(context(files, CONFIG))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"model.pt": b""}, "cannot be read, they are damaged or incomplete"),
        ({"model.pt": b"hello" * 100}, "cannot be read, they are damaged or incomplete .*KeyError: 101"),
        ({"model.pt": b"version https://git-lfs.github.com/spec/v1\n"}, "it is damaged .a Git LFS pointer"),
        ({"model.safetensors": b"?" * 64}, "cannot be read, they are damaged or incomplete"),
        ({"model.pt": lambda path: path.symlink_to("gone")}, "cannot be read, .*No such file"),
        ({"model.pt": lambda path: torch.save({1: torch.ones(1)}, path)}, "has a key 1, expected a state_dict"),
    ],
)
def test_weights_that_cannot_be_read(weights: Any, reason: str, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=f"failed to load model 'm': .*{reason}"):
        instance(context(eager(**weights), CONFIG))


def test_a_class_that_computes_nothing(context: Any, instance: Instance) -> None:
    code = "import torch\n\nclass Net(torch.nn.Module):\n    def foward(self, x):\n        return x\n"
    before = set(sys.modules)
    with pytest.raises(InvalidArgumentError, match="the class Net has no method 'forward'"):
        instance(context({"model.py": code}, CONFIG))
    assert not [name for name in set(sys.modules) - before if name.startswith(PREFIX)], "its code stays in memory"


class Dangerous:
    """Pickled, it runs a function when it is loaded."""

    ran: list[bool] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return Dangerous.ran.append, (True,)


@pytest.mark.parametrize("content", [Dangerous(), torch.nn.Linear(4, 2)], ids=["code", "module"])
def test_a_pickle_is_not_loaded(content: Any, context: Any, instance: Instance) -> None:
    for files in (
        eager(**{"model.pt": lambda path: torch.save(content, path)}),
        {"model.pt": lambda path: torch.save(content, path)},
    ):
        with pytest.raises(InvalidArgumentError, match=r"pickle.*--backend-config=pytorch,allow-unpickling=m"):
            instance(context(files, CONFIG, options={"allow-unpickling": "other"}))
        shutil.rmtree(context({}, CONFIG).version_path)
    # A parameter of the model allows nothing.
    with pytest.raises(InvalidArgumentError, match="pickle"):
        instance(
            context({"model.pt": lambda path: torch.save(content, path)}, CONFIG + parameter("allow-unpickling", "m"))
        )
    assert not Dangerous.ran


def test_an_operator_may_allow_a_pickle_by_name(context: Any, instance: Instance) -> None:
    linear = torch.nn.Linear(4, 2)
    config = CONFIG.replace('"x"', '"input"')
    made_context = context(
        {"model.pt": lambda path: torch.save(linear, path)}, config, options={"allow-unpickling": "other:m"}
    )
    result = instance(made_context).execute({"input": Tensor.from_numpy("input", X)}, ["y"])["y"]
    np.testing.assert_allclose(result, linear(torch.from_numpy(X)).detach().numpy())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_is_compiled_before_it_is_ready(context: Any, instance: Instance) -> None:
    config = CONFIG + parameter("TORCH_COMPILE_OPTIONAL_PARAMETERS", '{"backend": "aot_eager"}')
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    made = instance(context(eager(**{"model.pt": save_state}), config))
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled > before
    np.testing.assert_array_equal(run(made), EXPECTED)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled, "no request waits for the compiler"


# --- torch.export and AOTInductor


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layer(x), "total": x.sum(dim=1)}


def program(largest: int | None = 16) -> Any:
    net = Net().eval()
    net.load_state_dict(STATE)
    batch = torch.export.Dim("batch", min=1, max=largest) if largest else None
    return torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes={"x": {0: batch} if largest else None})


def save_program(largest: int | None = 16) -> Callable[[Path], None]:
    return lambda path: torch.export.save(program(largest), path)


def test_an_exported_program_needs_no_configuration(context: Any, instance: Instance) -> None:
    made_context = context({"model.pt2": save_program()})
    made = instance(made_context)
    config = made_context.config
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("x", 11, [4])]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("y", 11, [2]), ("total", 11, [1])]
    np.testing.assert_array_equal(run(made), EXPECTED)
    np.testing.assert_array_equal(run(made, output="total"), [4] * 3)


def test_an_exported_program_without_a_free_batch(context: Any, instance: Instance) -> None:
    made_context = context({"model.pt2": save_program(None)})
    instance(made_context)
    assert made_context.config.max_batch_size == 0
    assert list(made_context.config.input[0].dims) == [2, 4]


def test_an_exported_program_without_a_largest_batch(context: Any, instance: Instance) -> None:
    net = Net().eval()
    net.load_state_dict(STATE)
    free = torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    made_context = context({"model.pt2": lambda path: torch.export.save(free, path)})
    made = instance(made_context)
    assert made_context.config.max_batch_size == 4
    np.testing.assert_array_equal(run(made), EXPECTED)


def test_programs_may_be_loaded_at_the_same_time(context: Any, backend: Any) -> None:
    """PyTorch's own loader may not: it says that its deserializer is already set."""
    contexts = [context({"model.pt2": save_program()}, name=f"m{index}") for index in range(4)]
    with ThreadPoolExecutor(len(contexts)) as pool:
        list(pool.map(backend.auto_complete, contexts))
    assert [made.config.max_batch_size for made in contexts] == [4] * 4


def test_nothing_of_a_program_is_kept_when_it_is_gone(context: Any, backend: Any) -> None:
    """PyTorch would keep the code that it generates, which grows with the network, and shapes in its caches."""
    from torch.fx import graph_module
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    made = context({"model.pt2": save_program()}, CONFIG)

    def cycle() -> tuple[int, int]:
        model = backend.load(made)
        model.create_instance(InstanceContext("m_0_0", "CPU")).close()
        model.close()
        gc.collect()
        return len(graph_module._loader.eval_cache), sum(type(held) is ShapeEnv for held in gc.get_objects())

    cycle()
    assert cycle() == cycle()


def test_a_batch_larger_than_the_program_allows(context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match="exported for batches of at most 16"):
        instance(context({"model.pt2": save_program()}, "max_batch_size: 32"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="making a package needs a C++ compiler")
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's compiler, of its own code
def test_a_package_of_aotinductor(context: Any, instance: Instance) -> None:
    import torch._inductor as inductor

    files = {"model.pt2": lambda path: inductor.aoti_compile_and_package(program(), package_path=str(path))}
    made = instance(context(files, CONFIG))
    np.testing.assert_array_equal(run(made), EXPECTED)
    np.testing.assert_array_equal(run(made, X[:1]), EXPECTED[:1])


# --- files that cannot be loaded


def test_a_missing_file(context: Any, instance: Instance) -> None:
    with pytest.raises(UnavailableError, match=r"unable to find '.*/m/1/model.pt' for .*'m'.*there is net.pt"):
        instance(context({"net.pt": b""}, CONFIG))


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1", bytes(64)], ids=repr)
@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_a_damaged_file(name: str, data: bytes, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"failed to load model 'm': '{name}' is no model .* Git LFS"):
        instance(context({name: data}, CONFIG))


@pytest.mark.parametrize("offset", [6, 46], ids=["the version of a file in it", "the name of a file in it"])
def test_an_archive_whose_list_of_files_is_damaged(offset: int, context: Any, instance: Instance) -> None:
    def damage(path: Path) -> None:
        torch.jit.script(torch.nn.Linear(4, 2)).save(str(path))
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + offset] = 0xFF
        path.write_bytes(content)

    with pytest.raises(InvalidArgumentError, match=r"failed to load model 'm': 'model.pt' is no model .* damaged"):
        instance(context({"model.pt": damage}, CONFIG))


def test_an_archive_without_its_weights(context: Any, instance: Instance) -> None:
    def robbed(path: Path) -> None:
        torch.jit.script(torch.nn.Linear(4, 2)).save(str(path))
        with zipfile.ZipFile(path) as archive:
            kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith("data/0")}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in kept.items():
                archive.writestr(name, data)

    with pytest.raises(InvalidArgumentError, match="failed to load model 'm': "):
        instance(context({"model.pt": robbed}, CONFIG))


def test_code_that_fails(context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=r"failed to load model 'm': no such thing \(RuntimeError while"):
        instance(context({"model.py": "raise RuntimeError('no such thing')"}, CONFIG))


HUGE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, elements: int) -> None:
        super().__init__()
        self.register_buffer("buffer", torch.empty(elements))

    def forward(self, x):
        return x[:, :2] if x.shape[0] == 1 else torch.empty(1 << 50)
"""


def test_a_network_that_does_not_fit_into_memory(context: Any, instance: Instance) -> None:
    config = CONFIG + parameter("MODEL_ARGUMENTS", f'{{"elements": {1 << 50}}}')
    with pytest.raises(ResourceExhaustedError, match=r"failed to load model 'm': .*can't allocate memory"):
        instance(context({"model.py": HUGE}, config))


def test_a_run_that_does_not_fit_into_memory_fails_alone(context: Any, instance: Instance) -> None:
    made = instance(context({"model.py": HUGE}, CONFIG + parameter("MODEL_ARGUMENTS", '{"elements": 1}')))
    with pytest.raises(ResourceExhaustedError, match=r"PyTorch execute failure: .*can't allocate memory"):
        run(made)
    assert run(made, X[:1]).tolist() == [[1, 1]]


def test_a_gpu_that_is_not_there(context: Any, instance: Instance) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UnavailableError, match=r"model 'm' needs a GPU, and torch .* KIND_CPU"):
        instance(context({"model.pt2": save_program()}, CONFIG), kind="GPU")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("INFERENCE_MODE", "maybe", "one of true, on, 1, false, off, 0"),
        ("INTRA_OP_THREAD_COUNT", "-1", "an integer from 0 to 4096"),
        ("TORCH_COMPILE_OPTIONAL_PARAMETERS", "[]", "a JSON object"),
    ],
)
def test_parameters_are_checked(key: str, value: str, expected: str, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError, match=f"parameter '{key}' of model 'm' is .*, expected {expected}"):
        instance(context(eager(), CONFIG + parameter(key, value)))


def test_threads_are_the_instances_own(context: Any, instance: Instance) -> None:
    import threading

    seen: list[int] = []

    def on_a_thread() -> None:
        instance(context(eager(), CONFIG + parameter("INTRA_OP_THREAD_COUNT", "1")))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=on_a_thread)
    thread.start()
    thread.join()
    from trivet_backend_torch.runtime import DEFAULT_THREADS

    instance(context(eager(), CONFIG))
    assert seen == [1]
    assert torch.get_num_threads() == DEFAULT_THREADS
