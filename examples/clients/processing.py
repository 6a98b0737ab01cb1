"""What the models need around them: pixels, bytes and sound to tensors, and scores back to text."""

from __future__ import annotations

import argparse
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


def arguments(description: str | None, *names: str, **options: Any) -> argparse.Namespace:
    """The command line of an example client: its ``names``, and where the server is."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(name, **options)
    parser.add_argument("--url", default="localhost:8000", help="host and port of the server (default: %(default)s)")
    return parser.parse_args()


def channels_first(image: Image.Image) -> Floats:
    """FP32 [1, 3, height, width], scaled to -1…1."""
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)[np.newaxis]


def imagenet_pixels(path: str | Path) -> Floats:
    """FP32 [1, 3, 224, 224]: the middle of a picture, 7/8 of its shorter side, as ImageNet models are evaluated."""
    image = Image.open(path).convert("RGB")
    side = min(image.size) * 7 / 8
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return channels_first(image.resize((224, 224), Image.Resampling.BICUBIC, box))


def text_pixels(image: Image.Image, max_width: int | None = None) -> Floats:
    """FP32 [1, 3, 48, width]: a line of text 48 pixels high, as wide as its proportions ask, blue first."""
    width = max(round(image.width * 48 / image.height), 1)
    resized = image.convert("RGB").resize((min(width, max_width or width), 48))
    return np.ascontiguousarray(channels_first(resized)[:, ::-1])


def orientation_pixels(image: Image.Image) -> Floats:
    """FP32 [1, 3, 48, 192]: a line of text for the orientation model, squeezed if too wide, grey if too narrow."""
    pixels = text_pixels(image, max_width=192)
    return np.pad(pixels, [(0, 0), (0, 0), (0, 0), (0, 192 - pixels.shape[3])])


def page_pixels(image: Image.Image) -> Floats:
    """FP32 [1, 3, height, width]: a page, blue first, its edges drawn out to multiples of 32 as detection needs."""
    pixels = channels_first(image.convert("RGB"))[:, ::-1]
    return np.pad(pixels, [(0, 0), (0, 0), (0, -image.height % 32), (0, -image.width % 32)], mode="edge")


def ctc_text(scores: Floats, characters: str) -> str:
    """The text of one line out of its scores [steps, classes]: the best class of each, no repeats, no blanks (0)."""
    best = scores.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best, prepend=0))
    return "".join(characters[best[step] - 1] for step in changes if best[step])


def text_boxes(score_map: Floats) -> list[tuple[int, int, int, int]]:
    """The lines of horizontal text in a detection map [height, width], top to bottom, as (left, top, right, bottom).

    The map is cut where whole rows, and then whole columns, are empty. The model marks the core of a line, so each box
    grows by what it was trained with: 1.6 x area / perimeter.
    """
    text = score_map > 0.3
    boxes = []
    for top, bottom in runs(text.any(axis=1)):
        for left, right in runs(text[top:bottom].any(axis=0)):
            rows = np.flatnonzero(text[top:bottom, left:right].any(axis=1)) + top
            first, last = int(rows[0]), int(rows[-1]) + 1
            width, height = right - left, last - first
            if min(width, height) > 3:
                grow = round(1.6 * width * height / (2 * (width + height)))
                boxes.append((max(left - grow, 0), max(first - grow, 0), right + grow, last + grow))
    return boxes


def runs(flags: Any) -> list[tuple[int, int]]:
    """Where the BOOL array ``flags`` [N] is set without a gap, as half-open ranges."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def file_features(content: bytes) -> NDArray[np.int32]:
    """INT32 [1, 2048]: the first and the last 1024 bytes of a file without white space around; 256 stands for none."""
    features = np.full((1, 2048), 256, np.int32)
    head, tail = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    features[0, : len(head)] = np.frombuffer(head, np.uint8)
    features[0, 2048 - len(tail) :] = np.frombuffer(tail, np.uint8)
    return features


def speech_windows(path: str | Path) -> Floats:
    """FP32 [windows, 576]: a 16-bit mono WAV at 16 or 48 kHz, in windows of 32 ms, each with the 4 ms before it."""
    with wave.open(str(path)) as recording:
        rate = recording.getframerate()
        if (recording.getnchannels(), recording.getsampwidth()) != (1, 2) or rate not in (16000, 48000):
            raise SystemExit(f"{path}: expected 16-bit mono at 16 or 48 kHz")
        samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(np.float32) / 32768
    step = rate // 16000
    samples = samples[: len(samples) // step * step].reshape(-1, step).mean(axis=1)
    with_context = np.concatenate([np.zeros(64, np.float32), samples])
    return np.lib.stride_tricks.sliding_window_view(with_context, 576)[::512]
