#!/usr/bin/env python3
"""Run Triton's own load generator, perf_analyzer 2.50; all arguments go to it.

    tools/perf_analyzer.py -m double -i grpc -u 127.0.0.1:8001 --concurrency-range 1:32:8 -p 3000

The program comes inside the wheel of tritonclient (the last release of it that runs on glibc 2.36) and links against
CUDA's runtime, which comes from a wheel of its own; no GPU is needed. Both are unpacked into a cache folder on first
use. Needs Linux on x86-64 and the Debian package libb64-0d. Its HTTP client now and then never ends: give it a timeout.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.6.77")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivet" / "perf_analyzer-2.50"
PROGRAM = CACHE / "perf_analyzer"


def install() -> None:
    """Download and unpack the program into the cache, once, also when several processes ask at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (CACHE / "installed").exists():
            return
        download = CACHE / "download"
        # By platform tag: pip would otherwise take the wheel of pure Python, which has no perf_analyzer in it.
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        pip += ["--only-binary=:all:", "--platform=manylinux1_x86_64", "--platform=manylinux2014_x86_64"]
        subprocess.run([*pip, "-d", str(download), *WHEELS], check=True, stdout=sys.stderr)
        unpacked = CACHE / "wheels"
        for wheel in download.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        shutil.copy(next(unpacked.glob("tritonclient-*.data/data/bin/perf_analyzer")), PROGRAM)
        PROGRAM.chmod(0o755)
        (CACHE / "lib").unlink(missing_ok=True)
        (CACHE / "lib").symlink_to(unpacked / "nvidia" / "cuda_runtime" / "lib")
        shutil.rmtree(download)
        (CACHE / "installed").touch()


def main() -> None:
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError as error:
        raise SystemExit(f"{error}\nperf_analyzer needs that library: apt-get install libb64-0d") from None
    install()
    libraries = [str(CACHE / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    os.execv(PROGRAM, [str(PROGRAM), *sys.argv[1:]])


if __name__ == "__main__":
    main()
