"""What ``trivet new`` writes installs, is listed, passes its tests, is typed and clean, and serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner
from trivet.testing.conformance.rules import imported_by_discovery
from trivet_new.command import KINDS, new


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}"
    return done.stdout


def environment(folder: Path) -> Path:
    """A virtual environment with all that is installed here; gives its folder of programs."""
    venv.create(folder, with_pip=False)
    (there,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        (there / entry.name).symlink_to(entry)
    (folder / "bin" / "ruff").symlink_to(Path(sysconfig.get_path("scripts")) / "ruff")
    return folder / "bin"


def serve(programs: Path, models: Path) -> str:
    """Start a server, see it start, end it; gives its log."""
    ports = {f"TRIVET_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    process = subprocess.Popen(
        [programs / "python", "-m", "trivet", "serve", models],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ports},
    )
    assert process.stdout is not None
    log = ""
    for line in process.stdout:
        log += line
        if "started in" in line:
            process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) == 0, log
    return log


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_installs_passes_its_tests_and_serves(kind: str, tmp_path: Path) -> None:
    package = tmp_path / f"trivet-{kind}-my-own"
    done = CliRunner().invoke(new, [kind, "my-own", "--output", str(package)])
    assert done.exit_code == 0, done.output
    assert not [path for path in package.rglob("*") if "{{" in path.name or path.suffix == ".jinja"]

    programs = environment(tmp_path / "venv")
    python = programs / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", ".", cwd=package)
    assert f"trivet-{kind}-my-own" in run(python, "-m", "trivet", "plugins", cwd=tmp_path)

    tests = run(python, "-m", "pytest", "-q", cwd=package)
    assert "passed" in tests
    run(python, "-m", "ruff", "check", cwd=package)
    run(python, "-m", "ruff", "format", "--check", cwd=package)
    run(python, "-m", "mypy", cwd=package)

    models = package / "models" if kind == "backend" else tmp_path / "none"
    models.mkdir(exist_ok=True)
    assert "started in" in serve(programs, models)


@pytest.mark.parametrize("name", ["My", "my_own", "my--own", "1st", "-x", "", "x" * 33])
def test_a_name_that_no_package_may_have(name: str) -> None:
    done = CliRunner().invoke(new, ["backend", "--", name])
    assert done.exit_code == 2
    assert "expected lower-case letters, digits and hyphens" in done.output


def test_the_name_of_an_installed_package_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(new, ["exporter", "prometheus", "--output", str(tmp_path / "package")])
    assert done.exit_code == 1
    assert "trivet-exporter-prometheus is installed already; choose another name" in done.output
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("kind", "name", "hidden"),
    [
        ("backend", "array", "trivet.backend.ArrayInstance"),
        ("backend", "backend", "trivet.backend.BackendModel"),
        ("scheduler", "default", "trivet.scheduling.DefaultScheduler"),
        ("memory", "region", "trivet.memory.RegionSlice"),
    ],
)
def test_a_name_whose_class_would_hide_one_of_the_contract_is_refused(
    kind: str, name: str, hidden: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(new, [kind, name, "--output", str(tmp_path / "package")])
    assert done.exit_code == 1
    assert f"would be called as {hidden} is; choose another name" in done.output
    assert not (tmp_path / "package").exists()


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = CliRunner().invoke(new, ["backend", "x", "--output", str(tmp_path / "file" / "package")])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: cannot write '{tmp_path}/file/package': ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_the_longest_name_is_formatted(kind: str, tmp_path: Path) -> None:
    name = "an-unusually-long-name-of-a-form"
    assert len(name) == 32
    assert CliRunner().invoke(new, [kind, name, "--output", str(tmp_path / "package")]).exit_code == 0
    ruff = Path(sysconfig.get_path("scripts")) / "ruff"
    run(ruff, "check", cwd=tmp_path / "package")
    run(ruff, "format", "--check", cwd=tmp_path / "package")


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(new, ["backend", "x", "--output", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not empty" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_template_tool_is_not_imported_to_find_plugins() -> None:
    assert imported_by_discovery(("trivet_new", "copier")) == ["trivet_new"]
