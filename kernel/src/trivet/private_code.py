"""Python code that belongs to a model: imported under names that no other import has, and taken out again.

Two models, or two versions of one, may each have a ``model.py`` and a ``utils.py``. Each import of a model makes a
private package: its files are the package's submodules, compiled from what they are now. Nothing is added to
``sys.path`` or written beside the model, and closing the package takes all of it out of the interpreter.

``import utils`` in such a module must find the ``utils`` beside it, although the statement names no package. The import
statement calls ``__import__`` of the module's own builtins, so each private module gets builtins whose ``__import__``
looks beside the model, where Triton's order of search would: after the standard library and installed packages. What
such a module imports as ``importlib`` has an ``import_module`` that looks there too. Pickles that name such modules do
not pass by there and do not find them.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

PREFIX = "trivet_model_"
"""How the names of private packages begin."""

_numbers = itertools.count(1)
_packages: dict[str, PrivatePackage] = {}


class PrivatePackage:
    """One import of a model's code. :meth:`close` it when what it was imported for is gone. Any thread."""

    def __init__(self, folders: Sequence[Path], about: str) -> None:
        """``folders`` are searched in order for its modules; ``about`` is its docstring."""
        self.name = f"{PREFIX}{next(_numbers)}"
        """In ``sys.modules``; that of a module in it is ``NAME.MODULE``."""
        self._path = [str(folder) for folder in folders]
        self._beside: dict[str, bool] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = _Importlib(self)
        package = ModuleType(self.name, about)
        package.__path__ = self._path
        package.__spec__ = ModuleSpec(self.name, None, is_package=True)
        sys.modules[self.name] = package
        _packages[self.name] = self
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)

    def load(self, module: str) -> ModuleType:
        """Run a module of the package, ``model`` or ``handlers.image``, unless that was done, and return it.

        Raises :class:`ModuleNotFoundError` where none of the folders has it, and what it raises.
        """
        return importlib.import_module(f"{self.name}.{module}")

    def close(self) -> None:
        """Take the modules out of the interpreter and free what they hold.

        Emptying them ends the cycles through their globals, so that it does not wait for the garbage collector.
        """
        _packages.pop(self.name, None)
        for name in [name for name in list(sys.modules) if name == self.name or name.startswith(f"{self.name}.")]:
            content = vars(sys.modules.pop(name))
            # What tools add to a module has two underscores before it (torch.compile), and they remove it themselves.
            for key in [key for key in content if not key.startswith("__")]:
                del content[key]

    def _find(self, name: str, path: Sequence[str]) -> ModuleSpec | None:
        """The spec of a submodule by its full name, from the folders of ``path``."""
        namespaces: list[str] = []
        for folder in path:
            finder = FileFinder(
                folder,
                (ExtensionFileLoader, EXTENSION_SUFFIXES),
                (_FreshLoader, SOURCE_SUFFIXES),
                (SourcelessFileLoader, BYTECODE_SUFFIXES),
            )
            spec = finder.find_spec(name)
            if spec is None:
                continue
            if spec.loader is not None:
                return spec
            namespaces += spec.submodule_search_locations or ()
        if not namespaces:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = namespaces
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` of this package's modules; arguments and result as in :func:`builtins.__import__`."""
        if level == 0:
            top = name.partition(".")[0]
            if self._is_beside(top):
                module = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
                # Without a list of names the statement binds the first name, which here is the second.
                return module if fromlist else sys.modules[f"{self.name}.{top}"]
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        return self._importlib if module is importlib else module

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        """:func:`importlib.import_module` for this package's modules, which finds those beside the model too."""
        if not name.startswith(".") and self._is_beside(name.partition(".")[0]):
            return self.load(name)
        return importlib.import_module(name, package)

    def _is_beside(self, top: str) -> bool:
        """Whether a top-level name means something beside the model."""
        found = self._beside.get(top)
        if found is None:
            spec = self._find(f"{self.name}.{top}", self._path)
            # A folder without __init__.py is a package only where nothing else has the name: it may as well hold data.
            found = spec is not None and not _is_installed(top, regular=spec.loader is not None)
            self._beside[top] = found
        return found


class _Importlib(ModuleType):
    """``importlib`` as the modules of one package see it: with the package's ``import_module``."""

    def __init__(self, package: PrivatePackage) -> None:
        super().__init__(importlib.__name__, importlib.__doc__)
        self.import_module = package._import_module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _Finder:
    """Finds the submodules of private packages for the import system, under their full names."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _: ModuleType | None = None) -> ModuleSpec | None:
        package = _packages.get(name.partition(".")[0])
        return package._find(name, path) if package and path else None


_finder: Any = _Finder()


class _FreshLoader(SourceFileLoader):
    """Compiles the source each time.

    Bytecode caches go by the modification time in whole seconds, so a model that was changed and reloaded at once would
    get its old code; and they would be written into the model repository.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        package = _packages.get(module.__name__.partition(".")[0])
        if package is not None:
            vars(module)["__builtins__"] = package._builtins
        super().exec_module(module)


# As the server found it: what models append to sys.path is often their own folder, which must not make one model's
# `utils` everyone's. Absolute, as a thread may have a working directory of its own.
_SERVER_PATH = [str(Path(path).resolve()) for path in sys.path]


def _is_installed(top: str, *, regular: bool) -> bool:
    """Whether the server's environment has the name. A folder without ``__init__.py`` gives way to ``regular`` code."""
    if top in sys.stdlib_module_names:
        return True
    spec = PathFinder.find_spec(top, _SERVER_PATH)
    return spec is not None and (spec.loader is not None or not regular)


def running_package() -> PrivatePackage | None:
    """The package whose code is running in this thread, found on the call stack; ``None`` outside of any.

    Works on every thread, those that models start included. Not for the path of each request.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if isinstance(name, str) and name.startswith(PREFIX):
            package = _packages.get(name.partition(".")[0])
            if package is not None:
                return package
        frame = frame.f_back
    return None
