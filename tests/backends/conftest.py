"""One small network as a model of every kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from wide_models import CONFIG, KINDS, is_installed


@pytest.fixture(scope="session")
def add_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, str], Path]:
    """Adds a model of a kind to a repository under a name; gives its folder. Each kind is written once."""
    written: dict[str, Path] = {}

    def add(repository: Path, kind: str, name: str) -> Path:
        if not is_installed(kind):
            pytest.skip(f"{KINDS[kind].framework} is not installed")
        if kind not in written:
            version = tmp_path_factory.mktemp("wide") / "1"
            version.mkdir()
            KINDS[kind].write(version)
            written[kind] = version
        shutil.copytree(written[kind], repository / name / "1")
        (repository / name / "config.pbtxt").write_text(CONFIG.format(backend=KINDS[kind].backend))
        return repository / name

    return add
