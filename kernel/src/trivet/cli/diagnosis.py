"""What ``trivet doctor`` finds out. Nothing is imported that is only looked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trivet import __version__
from trivet.cli.sockets import listener_of
from trivet.errors import TrivetError
from trivet.hookspecs import BackendPlugin
from trivet.options import Settings
from trivet.plugins import InstalledPlugin, PluginRegistry

Status = Literal["ok", "note", "problem"]

_GPU_QUERY = ("--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis. ``fix`` is what to do about it, empty where there is nothing to do."""

    area: str
    what: str
    status: Status
    details: str = ""
    fix: str = ""


def diagnose(registry: PluginRegistry) -> Iterator[Finding]:
    """Everything, in the order in which it is shown."""
    yield from _versions()
    yield from _plugins(registry)
    yield from _frameworks(registry)
    yield from _gpus()
    yield from _ports(registry)


def _versions() -> Iterator[Finding]:
    yield Finding("Versions", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("Versions", "system", "ok", platform.platform())
    yield Finding("Versions", "trivet-kernel", "ok", __version__)
    uvloop = _distribution_version("uvloop")
    if uvloop:
        yield Finding("Versions", "uvloop", "ok", uvloop)
    elif sys.platform != "win32":
        fix = "pip install 'trivet-kernel[uvloop]'"
        yield Finding(
            "Versions", "uvloop", "note", "not installed; the event loop is asyncio's own, which is slower", fix
        )


def _plugins(registry: PluginRegistry) -> Iterator[Finding]:
    for plugin in registry.plugins:
        if plugin.error:
            yield Finding(
                "Plugins",
                plugin.package,
                "problem",
                plugin.error,
                f"pip install --upgrade --force-reinstall {plugin.package}",
            )
        else:
            offers = ", ".join(f"{family} {offer.name}" for family, offer in plugin.offers)
            yield Finding("Plugins", plugin.package, "ok", f"{plugin.version}: {offers}" if offers else plugin.version)
    try:
        registry.check()
    except TrivetError as error:
        yield Finding("Plugins", "names", "problem", error.message)
    wanted = (
        ("protocol", registry.protocols, "pip install trivet-protocol-kserve-v2"),
        ("HTTP transport", registry.http_transports, "pip install trivet-transport-http"),
        ("backend", registry.backends, "pip install 'trivet-backend-onnx[cpu]'"),
    )
    for family, offers_of_family, fix in wanted:
        if not offers_of_family:
            yield Finding("Plugins", family, "problem", "none is installed", fix)


def _frameworks(registry: PluginRegistry) -> Iterator[Finding]:
    for plugin in registry.plugins:
        for _, offer in plugin.offers:
            if not isinstance(offer, BackendPlugin):
                continue
            for needed in offer.requires:
                modules = needed.split("|")
                found = [name for name in modules if importlib.util.find_spec(name.partition(".")[0]) is not None]
                for module in found:
                    yield Finding(
                        "Frameworks", module, "ok", f"{_module_version(module)} (backend {offer.name})".strip()
                    )
                if not found:
                    yield Finding(
                        "Frameworks",
                        " or ".join(modules),
                        "problem",
                        f"not installed; backend {offer.name} needs it",
                        _how_to_get(plugin, modules[0]),
                    )


def _gpus() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding(
            "GPUs", "NVIDIA", "note", "nvidia-smi was not found, so no NVIDIA driver is here; models run on the CPU"
        )
        return
    try:
        # S603: the program is what PATH has, with constant arguments.
        output = subprocess.run([program, *_GPU_QUERY], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        output_of_error = getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)
        yield Finding("GPUs", "NVIDIA", "problem", str(output_of_error).strip(), "check the driver with nvidia-smi")
        return
    found = [line.split(", ") for line in output.stdout.splitlines() if line.strip()]
    for index, name, memory, driver in found:
        yield Finding("GPUs", f"GPU {index}", "ok", f"{name}, {memory}, driver {driver}")
    if not found:
        yield Finding("GPUs", "NVIDIA", "note", "the driver is here but shows no GPU")


def _ports(registry: PluginRegistry) -> Iterator[Finding]:
    settings = Settings.of(registry.options())
    for option in registry.options():
        if option.kind != "integer" or not option.name.endswith("-port") or not option.default:
            continue
        address = str(settings.get(option.key.removesuffix("_port") + "_address") or "0.0.0.0")  # noqa: S104
        what = f"{option.name} {option.default}"
        error = _cannot_bind(address, option.default)
        if error is None:
            yield Finding("Ports", what, "ok", f"free on {address}")
        else:
            owner = listener_of(option.default)
            fix = f"stop it, or choose another port with --{option.name}"
            yield Finding(
                "Ports", what, "problem", f"{address}: {error}" + (f"; held by {owner}" if owner else ""), fix
            )


def _cannot_bind(address: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server does it: a connection that was closed a moment ago does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


def _how_to_get(plugin: InstalledPlugin, module: str) -> str:
    """The package's extra that brings the framework, as its metadata tells."""
    try:
        metadata = importlib.metadata.metadata(plugin.package)
    except importlib.metadata.PackageNotFoundError:
        return f"pip install {module}"
    extras = metadata.get_all("Provides-Extra") or []
    wanted = sorted((extra for extra in extras if extra.startswith(("cpu", "gpu", "cu"))), key=lambda it: it != "cpu")
    if wanted:
        also = f" (or [{'], ['.join(wanted[1:])}])" if wanted[1:] else ""
        return f"pip install '{plugin.package}[{wanted[0]}]'{also}"
    return f"pip install {module}"


def _module_version(module: str) -> str:
    """The version of the distribution that brings ``module``, "" where none says it does."""
    for name in importlib.metadata.packages_distributions().get(module.partition(".")[0], ()):
        return f"{name} {importlib.metadata.version(name)}"
    return _distribution_version(re.sub(r"_", "-", module))


def _distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
