"""What a plan's head tells, and which file is a model's plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet_backend_trt.library import choose
from trivet_backend_trt.plan import Plan, find_plan, read_head
from trivet_backend_trt.settings import Settings

Context = Callable[..., ModelContext]


def head(tag: bytes, layout: int, version: tuple[int, ...]) -> bytes:
    return tag + layout.to_bytes(4, "little") + bytes(16) + bytes(version) + b"more"


@pytest.mark.parametrize(("content", "kind", "version", "text"), [
    (head(b"ftrt", 0, (10, 3, 0, 26)), "tensorrt", (10, 3, 0, 26), "TensorRT 10.3.0.26"),
    (head(b"vtrt", 0, (1, 7, 1, 116)), "tensorrt_rtx", (1, 7, 1, 116), "TensorRT for RTX 1.7.1.116"),
    (head(b"ftrt", 9, (99, 9, 9, 9)), "tensorrt", None, "a newer TensorRT"),
])  # fmt: skip
def test_it_tells_the_library_and_its_version(
    content: bytes, kind: str, version: tuple[int, ...] | None, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    assert read_head(path) == Plan(path, kind, version)
    assert read_head(path).built_by == text


@pytest.mark.parametrize("content", [b"", b"ftrt", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x0a" * 50])
def test_another_file_is_refused(content: bytes, context: Context) -> None:
    with pytest.raises(InvalidArgumentError, match=r"failed to load model 'm': 'model\.plan' is no TensorRT plan"):
        find_plan(context(content), None)


def test_a_plan_for_each_kind_of_gpu(context: Context) -> None:
    plans = {name: head(b"ftrt", 0, (10, 3, 0, 1)) for name in ("model.plan", "ada.plan")}
    made = context(plans, 'cc_model_filenames { key: "8.9" value: "ada.plan" }')
    assert find_plan(made, "8.9").path.name == "ada.plan"
    assert find_plan(made, "8.6").path.name == "model.plan"
    assert find_plan(made, None).path.name == "model.plan"
    with pytest.raises(UnavailableError, match=r"unable to find '.*/1/other.plan'.*there is ada.plan, model.plan"):
        find_plan(context({}, 'default_model_filename: "other.plan"'), None)


def test_a_library_that_loads_such_plans_is_chosen(tmp_path: Path) -> None:
    rtx = Plan(tmp_path / "model.plan", "tensorrt_rtx", (1, 7, 1, 116))
    with pytest.raises(InvalidArgumentError, match="'library' of model 'm' is 'tensorrt', expected one of tensorrt_"):
        choose(rtx, Settings(library="tensorrt"), "m")
    old = Plan(tmp_path / "model.plan", "tensorrt", (10, 3, 0, 26))
    with pytest.raises(UnavailableError, match="tensorrt_dispatch is not installed: pip install"):
        choose(old, Settings(library="tensorrt_dispatch"), "m")
