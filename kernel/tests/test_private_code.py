"""Python code of models: each import has modules of its own, which leave with it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trivet.private_code import PrivatePackage, running_package

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into a folder of a model, and returns the folder."""

    def into(folder: str, /, **files: str) -> Path:
        for name, code in files.items():
            file = tmp_path / folder / (name.replace("__in__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)
        return tmp_path / folder

    return into


def imported(*folders: Path) -> PrivatePackage:
    return PrivatePackage(folders, "The code of a test.")


def test_models_have_modules_of_the_same_name(write: Write) -> None:
    first = imported(write("a", model="from helper import NUMBER", helper="NUMBER = 1"))
    second = imported(write("b", model="import helper\nNUMBER = helper.NUMBER", helper="NUMBER = 2"))
    assert [package.load("model").NUMBER for package in (first, second)] == [1, 2]
    assert first.load("model") is first.load("model")
    assert "helper" not in sys.modules
    first.close()
    second.close()


@pytest.mark.parametrize(
    "code",
    [
        "import importlib\nhelper = importlib.import_module('helper')",
        "import importlib.util\nhelper = importlib.import_module('helper')",
        "from importlib import import_module\nhelper = import_module('helper')",
        "def later():\n    import importlib as imports\n    return imports.import_module('helper')\nhelper = later()",
    ],
)
def test_modules_beside_a_model_are_found_by_name_too(write: Write, code: str) -> None:
    packages = [imported(write(folder, model=code, helper=f"NUMBER = {n}")) for n, folder in enumerate("ab")]
    assert [package.load("model").helper.NUMBER for package in packages] == [0, 1]
    assert "helper" not in sys.modules
    for package in packages:
        package.close()


def test_importlib_is_otherwise_what_it_is_elsewhere(write: Write) -> None:
    names = "decoder, abc = importlib.import_module('json.decoder'), importlib.import_module('.abc', 'collections')"
    package = imported(write("a", model=f"import importlib.machinery\n{names}\nfrom importlib.util import find_spec"))
    model = package.load("model")
    assert model.decoder is sys.modules["json.decoder"]
    assert model.abc is sys.modules["collections.abc"]
    assert (model.find_spec, model.importlib.machinery) == (importlib.util.find_spec, importlib.machinery)
    with pytest.raises(ModuleNotFoundError, match="'no_such_module_of_anybody'"):
        model.importlib.import_module("no_such_module_of_anybody")
    package.close()


def test_what_is_installed_comes_before_what_lies_beside_a_model(write: Write) -> None:
    package = imported(write("a", model="import json\nFILE = json.__file__", json="raise RuntimeError('mine')"))
    assert not package.load("model").FILE.startswith(package.load("model").__file__.removesuffix("model.py"))
    package.close()


def test_folders_are_searched_in_order_and_packages_have_submodules(write: Write) -> None:
    version = write("a/1", model="from gadgets import numbers\nfrom gadgets.texts import NAME\nNUMBER = numbers.NUMBER")
    model = write("a", gadgets__in__numbers="NUMBER = 3", gadgets__in__texts="from .numbers import NUMBER\nNAME = 'a'")
    package = imported(version, model)
    assert (package.load("model").NUMBER, package.load("model").NAME) == (3, "a")
    package.close()


def test_closing_takes_all_of_it_out(write: Write) -> None:
    package = imported(write("a", model="import helper\n\ndef ask():\n    return helper", helper="X = 1"))
    module = package.load("model")
    assert {f"{package.name}.model", f"{package.name}.helper"} <= set(sys.modules)
    package.close()
    assert not [name for name in sys.modules if name.startswith(package.name)]
    assert not hasattr(module, "ask")


def test_code_that_was_changed_is_read_again_and_nothing_is_written_beside_it(write: Write) -> None:
    for number in (1, 2):
        package = imported(write("a", model=f"def read():\n    return {number}"))
        assert package.load("model").read() == number
        package.close()
    assert [file.name for file in write("a").iterdir()] == ["model.py"]


def test_a_module_that_is_not_there(write: Write) -> None:
    package = imported(write("a", model="import no_such_module_of_anybody"))
    with pytest.raises(ModuleNotFoundError, match="'no_such_module_of_anybody'"):
        package.load("model")
    with pytest.raises(ModuleNotFoundError):
        package.load("other")
    package.close()


def test_the_package_whose_code_runs_is_known_on_every_thread(write: Write) -> None:
    package = imported(write("a", model="def call(function):\n    return function()"))
    call = package.load("model").call
    assert running_package() is None
    assert call(running_package) is package
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(call, running_package).result() is package
    package.close()
