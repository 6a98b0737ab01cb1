"""What a response depends on, as one digest: the key under which a response cache remembers it.

Responses are handed from one caller to another by this key alone, so two requests must never share one by chance or by
a caller's design: it is a cryptographic digest over an unambiguous encoding. SHA-256 is the fastest of the standard
library's on processors with instructions for it (measured: 0.7 us for 1 KB, 0.5 ms for 1 MB).

Triton hashes model, version, and the names and bytes of inputs (64 bits). Shapes, datatypes, parameters and the
requested outputs are part of ours too, since a response depends on them, and so is what the model was loaded from, so
that a model that was changed and loaded again does not answer with what the old one computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trivet.model_files import file_stamps
from trivet.tensor import Buffer

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.spec import ModelSpec
    from trivet.inference import InferenceRequest

# Where and when a model runs, which changes nothing about what it answers.
_SCHEDULING: Final = ("instance_group", "dynamic_batching", "model_warmup")


class KeyMaterial:
    """Everything that goes into the key of one request, as buffers; nothing is copied.

    ``size`` is in bytes. :meth:`digest` may run on any thread while nobody changes the request's tensors.
    """

    __slots__ = ("_parts", "size")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = parts
        self.size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)

    def digest(self) -> bytes:
        """The key, of 32 bytes."""
        digest = hashlib.sha256()
        for part in self._parts:
            digest.update(part)
        return digest.digest()


def key_material(identity: bytes, spec: ModelSpec, request: InferenceRequest) -> KeyMaterial | None:
    """What the key of a validated request is made of; ``None`` where an input is on a device, to be left there.

    ``identity`` is the model's (:func:`model_identity`). Of the request these count: inputs by name, in any order, with
    datatype, shape and bytes; the outputs and their order; parameters, the outputs' own included. Its id, priority,
    timeout and trace do not.
    """
    described = []
    buffers: list[Buffer] = []
    for name in sorted(request.inputs):
        tensor = request.inputs[name]
        if tensor.on_device:
            return None
        data = tensor.wire()
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        described.append((name, tensor.datatype.name, tensor.shape, size))
        buffers.append(data)
    if request.outputs is None:
        outputs: list[object] = [(name, []) for name in spec.output_names]
    else:
        outputs = [(output.name, sorted(output.parameters.items())) for output in request.outputs]
    # repr() of text, numbers and tuples can be read back one way only, and tells 1, 1.0 and True apart; with its length
    # before it, and the sizes of the buffers in it, nothing can move from one part to the next.
    header = repr((len(identity), described, outputs, sorted(request.parameters.items()))).encode(
        "utf-8", "surrogatepass"
    )
    return KeyMaterial([len(header).to_bytes(8, "little"), header, identity, *buffers])


def model_identity(config: ModelConfig, version: int, path: Path, *, contents: bool) -> bytes:
    """A digest of what one version of a model is: its name, number, configuration and files. Blocks.

    With ``contents`` the files are read, and the same model has the same identity on every server; without, their
    sizes and times of modification stand for them. ``path`` is the model's folder. Raises :class:`OSError` for a file
    that cannot be read.
    """
    essence = type(config)()
    essence.CopyFrom(config)
    for field in _SCHEDULING:
        essence.ClearField(field)
    digest = hashlib.sha256(repr((config.name, version)).encode())
    digest.update(essence.SerializeToString(deterministic=True))
    for name, size, modified in sorted(file_stamps(path)):
        folder = name.partition("/")[0]
        if "/" in name and folder.isdecimal() and folder != str(version):
            continue  # another version's
        if folder == "configs" or ("/" not in name and name.startswith("config.")):
            continue  # the configuration was read, or another was given in its place
        digest.update(repr((name, size, 0 if contents else modified)).encode("utf-8", "surrogatepass"))
        if contents:
            with (path / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()
