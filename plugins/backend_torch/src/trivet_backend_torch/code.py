"""How the Python code of a model is imported: under a name of its own, with what lies beside it.

Two models may each have a ``model.py`` and a ``utils.py``. Each import gets a package of its own in ``sys.modules``,
whose modules' ``import`` statement looks beside the file for what is not installed. Nothing is added to ``sys.path``,
and :meth:`ModelCode.close` takes all of it out of the interpreter.
"""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

_numbers = itertools.count(1)


class ModelCode:
    """The Python files of one folder, imported for one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"trivet_torch_model_{next(_numbers)}"
        self._builtins = {**vars(builtins), "__import__": self._import}
        package = ModuleType(self.name)
        package.__path__ = [str(folder)]
        sys.modules[self.name] = package

    def load(self, module: str) -> ModuleType:
        """Run ``MODULE.py`` (or the package ``MODULE``) of the folder, once. Raises what it raises."""
        full = f"{self.name}.{module}"
        if full in sys.modules:
            return sys.modules[full]
        parent, _, _ = full.rpartition(".")
        if parent != self.name:
            self.load(parent.removeprefix(f"{self.name}."))
        base = self.folder.joinpath(*module.split("."))
        is_package = (base / "__init__.py").is_file()
        file = base / "__init__.py" if is_package else base.with_suffix(".py")
        spec = importlib.util.spec_from_file_location(
            full, file, submodule_search_locations=[str(base)] if is_package else None
        )
        if spec is None or spec.loader is None or not file.is_file():
            raise ModuleNotFoundError(f"there is no '{file.name}' in '{self.folder}'", name=module)
        loaded = importlib.util.module_from_spec(spec)
        vars(loaded)["__builtins__"] = self._builtins
        sys.modules[full] = loaded
        try:
            # Compiled from the source as it is now: bytecode caches go by whole seconds, and would be written beside
            # it.
            exec(compile(file.read_bytes(), str(file), "exec"), vars(loaded))  # noqa: S102 - the model's code
        except BaseException:
            del sys.modules[full]
            raise
        setattr(sys.modules[parent], full.rpartition(".")[2], loaded)
        return loaded

    def close(self) -> None:
        """Take the modules out of the interpreter, and empty them so that nothing waits for the garbage collector."""
        for name in [name for name in list(sys.modules) if name == self.name or name.startswith(f"{self.name}.")]:
            content = vars(sys.modules.pop(name))
            # torch.compile keeps names of its own in there (two underscores), and removes them itself.
            for key in [key for key in content if not key.startswith("__")]:
                del content[key]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` of the model's modules; arguments and result as in :func:`builtins.__import__`."""
        if level == 0:
            top = name.partition(".")[0]
            if self._is_beside(top):
                module = self.load(name)
                for part in fromlist or ():
                    if not hasattr(module, part) and self._is_beside(f"{name}.{part}"):
                        self.load(f"{name}.{part}")
                return module if fromlist else sys.modules[f"{self.name}.{top}"]
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    def _is_beside(self, module: str) -> bool:
        base = self.folder.joinpath(*module.split("."))
        if not (base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()):
            return False
        top = module.partition(".")[0]
        # What is installed comes first, as on Triton's path.
        return top not in sys.modules and top not in sys.stdlib_module_names and importlib.util.find_spec(top) is None
