"""Model repositories for one run, in a temporary folder, made of links to models that exist."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples" / "model_repository"
MODELS = Path(__file__).parent / "models"

SENTENCE_EMBEDDING = EXAMPLES / "sentence_embedding" / "1" / "model.onnx"
"""all-MiniLM-L6-v2: INT64 ``input_ids``, ``attention_mask``, ``token_type_ids`` [B, S] to FP32 [B, 384]; 90 MB."""
FILE_TYPE = EXAMPLES / "file_type" / "1" / "model.onnx"
"""magika: INT32 ``bytes`` [B, 2048] to FP32 ``target_label`` [B, 214]; 3 MB."""


class Repository:
    """A model repository under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def link(self, model: Path) -> None:
        """Take a model's folder as it is. Raises :class:`FileNotFoundError`, saying how to build the examples."""
        (self.path / model.name).symlink_to(existing(model), target_is_directory=True)

    def copy(self, model: Path, name: str) -> None:
        """Take a model under another name. Raises as :meth:`link` does."""
        shutil.copytree(existing(model), self.path / name)

    def onnx(self, name: str, model_file: Path, config: str) -> None:
        """A model of version 1 with a configuration of its own (text of a ``config.pbtxt``)."""
        folder = self.path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").symlink_to(existing(model_file))
        (folder.parent / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}\n')


@contextmanager
def repository() -> Iterator[Repository]:
    """An empty one, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="trivet-bench-") as folder:
        yield Repository(Path(folder))


def tiny_onnx(path: Path) -> None:
    """Write a model of one operator: FP32 ``x`` [N, 16] to ``y`` = 2 x. What is resident beside it is the server."""
    import onnx  # noqa: PLC0415 - few figures need it

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", float32, ["N", 16])],
        [helper.make_tensor_value_info("y", float32, ["N", 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def existing(path: Path) -> Path:
    """The path itself, links followed. Raises :class:`FileNotFoundError`, saying how to build the examples."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; run: python examples/build_repository.py --only all --pytorch --tensorflow"
        )
    return path.resolve()
