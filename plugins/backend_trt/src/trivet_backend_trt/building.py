"""From an ONNX model to a plan, by TensorRT's builder or that of TensorRT for RTX.

The latter builds without a GPU, for all GPUs that it knows or for those that are named. TensorRT's own times kernels on
the GPU that is there, and so needs one.

Source: TensorRT's Python API (``Builder``, ``IBuilderConfig``, ``OnnxParser``); names are those of versions 10 and 11.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.errors import InvalidArgumentError, UnavailableError

from trivet_backend_trt import driver, library
from trivet_backend_trt.shapes import ProfileShapes, Sizes

BUILDERS = ("tensorrt", "tensorrt_rtx")

HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
"""``--hardware-compatible``, and names of ``tensorrt.HardwareCompatibilityLevel``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a plan is built for."""

    library: str | None = None
    """The module; ``None``: the first of :data:`BUILDERS` that is installed."""
    profiles: Sequence[ProfileShapes] = ()
    precisions: Sequence[str] = ()
    """``fp16``, ``bf16``, ``int8``, ``fp8`` …: flags that only TensorRT 10 has."""
    strongly_typed: bool = False
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatible: str | None = None
    """A key of :data:`HARDWARE`."""
    weight_streaming: bool = False
    timing_cache: Path | None = None
    compute_capabilities: Sequence[str] = ()
    """``8.6`` and so on, or ``current``: for TensorRT for RTX."""
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    dla_core: int | None = None
    plugins: Sequence[str] = ()


def build_plan(model: Path, options: BuildOptions, monitor: Any = None) -> bytes:
    """Build a plan. Blocks for seconds to hours.

    ``monitor`` makes an ``IProgressMonitor`` of the module that it is given. Raises
    :class:`~trivet.errors.InvalidArgumentError` for a model that cannot be parsed or built and for options that the
    library has not, and :class:`~trivet.errors.UnavailableError` without the library, or a GPU that it needs.
    """
    trt = library.load(_choose(options))
    is_rtx = trt.__name__ == "tensorrt_rtx"
    if not is_rtx or "current" in options.compute_capabilities:
        driver.require_device(0)
    _refuse_unknown(trt, options, is_rtx=is_rtx)
    log = library.log_of(trt)
    library.register_plugins(trt, log, options.plugins)
    with library.collecting_errors() as errors:
        builder = trt.Builder(log)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if options.strongly_typed else 0
        network = builder.create_network(strongly_typed)
        _parse(trt, network, log, model)
        config = builder.create_builder_config()
        _configure(trt, config, options)
        _add_profiles(builder, config, network, options.profiles, errors)
        cache = _load_timing_cache(config, options.timing_cache)
        made = monitor(trt) if monitor is not None else None
        if made is not None:
            config.progress_monitor = made
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            if made is not None and made.cancelled.is_set():
                raise UnavailableError("the build was cancelled")
            raise InvalidArgumentError(f"'{model.name}' cannot be built: {library.reasons(errors, 'no reason given')}")
        if cache is not None and options.timing_cache is not None:
            write_file(options.timing_cache, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)


def write_file(path: Path, content: bytes) -> None:
    """All of it, or what was there before. Raises :class:`OSError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _choose(options: BuildOptions) -> str:
    if options.library is not None:
        return options.library
    for name in BUILDERS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise UnavailableError(
        f"there is no TensorRT to build with: {library.MODULES['tensorrt']}, or"
        f" {library.MODULES['tensorrt_rtx']}, which builds without a GPU"
    )


def _refuse_unknown(trt: Any, options: BuildOptions, *, is_rtx: bool) -> None:
    """Options that the module has not, each with what to do instead."""
    for precision in options.precisions:
        if not hasattr(trt.BuilderFlag, precision.upper()):
            raise InvalidArgumentError(
                f"{trt.__name__} {trt.__version__} has no precision '{precision}': a network has the types of its ONNX"
                " model; convert that, or build with TensorRT 10"
            )
    if options.exclude_lean_runtime and not options.version_compatible:
        raise InvalidArgumentError("--exclude-lean-runtime is for plans that are --version-compatible")
    if is_rtx:
        instead = {
            "--version-compatible": (options.version_compatible, "there is no lean runtime for it"),
            "--hardware-compatible": (options.hardware_compatible, "name GPUs with --compute-capability"),
            "--timing-cache": (options.timing_cache, "it times nothing while it builds"),
            "--dla-core": (options.dla_core is not None, "it runs on GPUs alone"),
        }
        for option, (given, reason) in instead.items():
            if given:
                raise InvalidArgumentError(f"{option} is not for TensorRT for RTX: {reason}")
    elif options.compute_capabilities:
        raise InvalidArgumentError(
            "--compute-capability is for TensorRT for RTX (--library tensorrt_rtx): TensorRT builds for the GPU that is"
            " there, or with --hardware-compatible"
        )


def _parse(trt: Any, network: Any, log: Any, model: Path) -> None:
    if not model.is_file():
        raise InvalidArgumentError(f"there is no file '{model}'")
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(model)):
        if not network.num_outputs:  # so it reads what is empty, or all unknown fields to it
            raise InvalidArgumentError(
                f"'{model.name}' has no outputs; it is damaged, or no ONNX model (a Git LFS pointer?)"
            )
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    said = [
        error.desc() + (f" (node '{error.node_name()}', a {error.node_operator()})" if error.node_operator() else "")
        for error in found
    ]
    raise InvalidArgumentError(f"'{model.name}' cannot be parsed as ONNX: {library.reasons(said, 'no reason given')}")


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:
    flags = [precision.upper() for precision in options.precisions]
    flags += ["VERSION_COMPATIBLE"] * options.version_compatible
    flags += ["EXCLUDE_LEAN_RUNTIME"] * options.exclude_lean_runtime
    flags += ["WEIGHT_STREAMING"] * options.weight_streaming
    flags += ["GPU_FALLBACK"] * (options.dla_core is not None)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if options.hardware_compatible is not None:
        level = HARDWARE[options.hardware_compatible]
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise InvalidArgumentError(f"TensorRT {trt.__version__} has no hardware compatibility '{level}'")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
    if options.compute_capabilities:
        _set_compute_capabilities(trt, config, options.compute_capabilities)


def _set_compute_capabilities(trt: Any, config: Any, wanted: Sequence[str]) -> None:
    known = library.compute_capabilities(trt)
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise InvalidArgumentError(
            f"{trt.__name__} {trt.__version__} does not build for compute capability {unknown[0]}, only for"
            f" {', '.join(known)}"
        )
    here = driver.compute_capability(0) if "current" in wanted else None
    if here and here not in known:
        raise InvalidArgumentError(
            f"the GPU here has compute capability {here}, for which {trt.__name__} {trt.__version__} does not build;"
            " build with TensorRT"
        )
    config.num_compute_capabilities = len(wanted)
    for index, each in enumerate(wanted):
        if not config.set_compute_capability(known[each], index):
            raise InvalidArgumentError(f"compute capability {each} cannot be built together with {', '.join(wanted)}")


def _add_profiles(
    builder: Any, config: Any, network: Any, profiles: Sequence[ProfileShapes], errors: Sequence[str]
) -> None:
    inputs = {tensor.name: tensor for tensor in (network.get_input(index) for index in range(network.num_inputs))}
    varying = [name for name, tensor in inputs.items() if tensor.is_shape_tensor or -1 in tensor.shape]
    if varying and not profiles:
        example = ",".join(f"{name}:{_example(inputs[name])}" for name in varying)
        raise InvalidArgumentError(
            f"the sizes of {', '.join(varying)} vary: give them with --min, --opt and --max, such as --opt {example}"
        )
    for shapes in profiles:
        _check_names(shapes.optimum, inputs, varying)
        profile = builder.create_optimization_profile()
        for name, best in shapes.optimum.items():
            tensor = inputs[name]
            bounds = (shapes.minimum[name], best, shapes.maximum[name])
            try:
                if tensor.is_shape_tensor:
                    profile.set_shape_input(name, *bounds)
                else:
                    _check_shape(name, tuple(tensor.shape), bounds)
                    profile.set_shape(name, *bounds)
            except (ValueError, TypeError, RuntimeError) as error:
                reason = library.reasons(errors, str(error))
                raise InvalidArgumentError(f"input '{name}' cannot have these sizes: {reason}") from error
        if config.add_optimization_profile(profile) < 0:
            reason = library.reasons(errors, "no reason given")
            raise InvalidArgumentError(f"TensorRT does not take the optimization profile: {reason}")


def _example(tensor: Any) -> str:
    return "x".join(str(dim) if dim > 0 else "1" for dim in tensor.shape)


def _check_names(given: Mapping[str, Sizes], inputs: Mapping[str, Any], varying: Sequence[str]) -> None:
    unknown = [name for name in given if name not in inputs]
    if unknown:
        raise InvalidArgumentError(f"there is no input '{unknown[0]}'; the model's inputs are {', '.join(inputs)}")
    missing = [name for name in varying if name not in given]
    if missing:
        raise InvalidArgumentError(f"a profile must name all inputs whose sizes vary, and misses {', '.join(missing)}")


def _check_shape(name: str, own: Sizes, bounds: Sequence[Sizes]) -> None:
    for shape in bounds:
        if len(shape) != len(own) or any(have not in (-1, given) for have, given in zip(own, shape, strict=True)):
            raise InvalidArgumentError(
                f"input '{name}' cannot have the shape {list(shape)}: the model has {list(own)}, where -1 is any size"
            )


def _load_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise InvalidArgumentError(
            f"the timing cache '{path}' is of another version or GPU; give another file, or delete it"
        )
    return cache
