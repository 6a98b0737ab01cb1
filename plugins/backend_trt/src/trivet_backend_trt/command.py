"""The command ``trivet trt``. TensorRT is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHAPES = "as for trtexec: input:1x3x224x224,mask:1x128. Repeat it for each profile."


class _Size(click.ParamType[int]):
    """Bytes, also as 500M or 4G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper()
        shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        digits = text[:-1] if shift else text
        if not digits.isdecimal() or not digits.isascii():
            self.fail(f"{value!r} is no size, expected bytes, such as 1000000, 500M or 4G", param, ctx)
        size = int(digits) << shift
        if size >= 1 << 63:
            self.fail(f"{value!r} is more than any machine has", param, ctx)
        return size


@click.group
def trt() -> None:
    """Build TensorRT plans."""


@trt.command
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="The plan to write, such as models/NAME/1/model.plan.")
@click.option(
    "--library",
    type=click.Choice(("tensorrt", "tensorrt_rtx")),
    help="The library to build with; by default TensorRT if it is installed, otherwise TensorRT for RTX.",
)
@click.option(
    "--min", "minimum", multiple=True, metavar="SHAPES", help=f"The smallest shapes of variable inputs, {_SHAPES}"
)
@click.option("--opt", "optimum", multiple=True, metavar="SHAPES", help="The shapes that the plan is optimized for.")
@click.option("--max", "maximum", multiple=True, metavar="SHAPES", help="The largest shapes.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="TYPE",
    help="fp16, bf16, int8, fp8: allow this type. TensorRT 10 only; later versions keep the model's types.",
)
@click.option("--strongly-typed", is_flag=True, help="Keep the model's types (TensorRT 10).")
@click.option("--version-compatible", is_flag=True, help="Later versions can load the plan; it contains a runtime.")
@click.option("--exclude-lean-runtime", is_flag=True, help="Version-compatible, but without a runtime.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(("ampere-plus", "same-compute-capability")),
    help="Build for more GPUs than the one in this machine (TensorRT).",
)
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="X.Y",
    help="GPUs to build for (TensorRT for RTX), such as 8.9; repeat it for several. By default all.",
)
@click.option("--weight-streaming", is_flag=True, help="Allow weight streaming: weights need not fit on the GPU.")
@click.option("--timing-cache", type=_FILE, help="A file that caches kernel timings for later builds.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="Higher levels search longer for faster kernels.")
@click.option("--workspace", "workspace_bytes", type=_Size(), metavar="BYTES", help="Limit of scratch memory, e.g. 4G.")
@click.option("--dla-core", type=click.IntRange(0), help="Build for this DLA core, with the GPU as fallback.")
@click.option("--plugins", multiple=True, type=click.Path(), help="A library with TensorRT plugins.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def build(
    model: Path,
    output: Path,
    minimum: tuple[str, ...],
    optimum: tuple[str, ...],
    maximum: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Build a TensorRT plan from the ONNX file MODEL.

    TensorRT builds for the GPU of this machine. TensorRT for RTX needs no GPU, and builds for all that it supports.
    """
    from trivet_backend_trt.building import BuildOptions, write_file  # noqa: PLC0415 - see the module
    from trivet_backend_trt.shapes import read_profiles  # noqa: PLC0415

    profiles = read_profiles(minimum, optimum, maximum)
    try:
        plan = _run(model, BuildOptions(profiles=profiles, **options), quiet=quiet)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, plan)
    except OSError as error:
        raise click.ClickException(f"'{error.filename or output}': {error.strerror}") from error
    click.echo(f"wrote {output} ({len(plan):,} bytes)")


def _run(model: Path, options: Any, *, quiet: bool) -> bytes:
    """Build on a thread of its own: an interrupt then ends it at its next step, in place of going through C++."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415
    from contextlib import nullcontext  # noqa: PLC0415

    from trivet_backend_trt.building import build_plan  # noqa: PLC0415
    from trivet_backend_trt.progress import BuildProgress  # noqa: PLC0415

    progress = BuildProgress()
    with ThreadPoolExecutor(1, thread_name_prefix="trt-build") as pool, nullcontext() if quiet else progress:
        building = pool.submit(build_plan, model, options, progress.monitor)
        try:
            return building.result()
        except KeyboardInterrupt:
            progress.cancelled.set()
            raise
