"""Reads a GGUF file (version 3): what it says about the model, and its tensors in float32.

Source: the GGUF specification, and the block formats ``Q4_1`` and ``Q8_0`` of ggml.
"""

import struct

import numpy as np

MAGIC, VERSION = 0x46554747, 3
ALIGNMENT = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCK = 32  # weights that share a scale

Q4_1_BLOCK = np.dtype([("scale", "<f2"), ("least", "<f2"), ("pairs", "u1", BLOCK // 2)])
Q8_0_BLOCK = np.dtype([("scale", "<f2"), ("weights", "i1", BLOCK)])


def read(path):
    """``(metadata, tensors)``: values by key, and float32 arrays by name, the output dimension first."""
    data = np.memmap(path, np.uint8, "r")
    reader = _Reader(data)
    magic, version, tensor_count, value_count = reader.unpack("IIQQ")
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError(f"{path} is no GGUF file of version {VERSION}")
    metadata = {}
    for _ in range(value_count):
        key = reader.string()
        metadata[key] = reader.value(*reader.unpack("I"))
    described = []
    for _ in range(tensor_count):
        name = reader.string()
        (rank,) = reader.unpack("I")
        shape = reader.unpack(f"{rank}Q")[::-1]
        described.append((name, shape, *reader.unpack("IQ")))
    start = -(-reader.at // ALIGNMENT) * ALIGNMENT
    return metadata, {
        name: _weights(data, kind, start + offset, int(np.prod(shape))).reshape(shape)
        for name, shape, kind, offset in described
    }


class _Reader:
    def __init__(self, data):
        self._data = memoryview(data)
        self.at = 0

    def unpack(self, layout):
        values = struct.unpack_from(f"<{layout}", self._data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def string(self):
        (size,) = self.unpack("Q")
        self.at += size
        return bytes(self._data[self.at - size : self.at]).decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, count = self.unpack("IQ")
            return [self.value(of) for _ in range(count)]
        return self.unpack(SCALARS[kind])[0]


def _weights(data, kind, offset, count):
    if kind == F32:
        return np.frombuffer(data, "<f4", count, offset).copy()
    if kind == Q8_0:
        blocks = np.frombuffer(data, Q8_0_BLOCK, count // BLOCK, offset)
        return (blocks["weights"] * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    if kind == Q4_1:
        blocks = np.frombuffer(data, Q4_1_BLOCK, count // BLOCK, offset)
        # The low halves of the bytes come first, then the high ones.
        quants = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)
        scale, least = (blocks[field].astype(np.float32)[:, None] for field in ("scale", "least"))
        return (quants * scale + least).reshape(-1)
    raise ValueError(f"tensors of type {kind} are not read here: expected F32, Q4_1 or Q8_0")
