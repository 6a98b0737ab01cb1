"""Every command and snippet that the documentation shows is run; see ``shown_code`` for how."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import shown_code

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
        ROOT / "kernel" / "README.md",
        *(ROOT / "plugins").glob("*/README.md"),
    ]
)

# Everything that is not run, so that it does not become more unnoticed.
_INSTALLS = "it would change the environment that the tests run in"
NOT_RUN = {
    "README.md": ["it runs this test", _INSTALLS],
    "docs/benchmarks.md": [
        *["it takes the machine for minutes, and measures nothing beside other tests"] * 2,
        "it measures nothing beside other tests",
    ],
    "docs/how-to/install.md": [_INSTALLS] * 2,
    "docs/how-to/serve-pytorch.md": [_INSTALLS],
    "docs/how-to/serve-tensorflow.md": [_INSTALLS],
    "docs/how-to/share-memory.md": ["it needs a GPU"] * 3,
    "docs/how-to/test-a-plugin.md": [_INSTALLS],
    "docs/tutorials/first-model.md": [_INSTALLS],
    "docs/tutorials/your-backend.md": [_INSTALLS],
    "kernel/README.md": [_INSTALLS],
    "plugins/backend_onnx/README.md": [_INSTALLS],
    "plugins/backend_python/README.md": [_INSTALLS],
    "plugins/backend_tf/README.md": [_INSTALLS],
    "plugins/backend_torch/README.md": [_INSTALLS],
    "plugins/backend_trt/README.md": [_INSTALLS],
    "plugins/cache_local/README.md": [_INSTALLS],
    "plugins/cache_redis/README.md": [_INSTALLS],
    "plugins/exporter_opentelemetry/README.md": [_INSTALLS],
    "plugins/exporter_prometheus/README.md": [_INSTALLS],
    "plugins/memory_cuda/README.md": [_INSTALLS],
    "plugins/memory_system/README.md": [_INSTALLS],
    "plugins/new/README.md": [_INSTALLS],
    "plugins/protocol_kserve_v2/README.md": [_INSTALLS],
    "plugins/scheduler_dynamic/README.md": [_INSTALLS],
    "plugins/scheduler_ensemble/README.md": [_INSTALLS],
    "plugins/scheduler_sequence/README.md": [_INSTALLS],
    "plugins/transport_http/README.md": [_INSTALLS],
}


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.timeout(600)  # it waits for many processes, each of which has a limit of its own
@pytest.mark.parametrize("page", [page for page in PAGES if any(shown_code.blocks(page))], ids=_name)
def test_what_the_page_shows_works(page: Path, tmp_path: Path) -> None:
    with shown_code.Reader(tmp_path) as reader:
        _lay_out(tmp_path, reader)
        for block in shown_code.blocks(page):
            reader.follow(block)


def test_what_is_not_run_is_known() -> None:
    found = {_name(page): [block.not_run for block in shown_code.blocks(page) if block.not_run] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN


def _lay_out(folder: Path, reader: shown_code.Reader) -> None:
    """What a page may take for granted: a fresh clone, its virtual environment, and what was downloaded before."""
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "README.md", folder)
    built = shutil.ignore_patterns("model_repository", "samples", ".cache", "__pycache__")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=built)
    cache = ROOT / "examples" / ".cache"
    cache.mkdir(exist_ok=True)
    (folder / "examples" / ".cache").symlink_to(cache)
    for client in (folder / "examples" / "clients").glob("*.py"):
        client.write_text(reader.with_ports(client.read_text()))
