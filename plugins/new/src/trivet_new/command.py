"""The command ``trivet new``. The template tool is imported when it runs."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from trivet.hookspecs import API_VERSION

KINDS = ("backend", "protocol", "scheduler", "exporter", "memory")
TEMPLATES = Path(__file__).with_name("templates")

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 32
"""With more, lines of the templates would be too long for the linter that comes with them."""
_CLASSES = {
    "backend": ("trivet.backend", ("Backend", "Model", "Instance")),
    "protocol": ("trivet.service", ("Protocol",)),
    "scheduler": ("trivet.scheduling", ("Scheduler",)),
    "exporter": ("trivet.service", ("Exporter",)),
    "memory": ("trivet.memory", ("Memory", "Slice")),
}
"""The module of each kind's contract, and what the classes of its template are called after the name."""


@click.command
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write, which must be empty or not there; by default ./trivet-KIND-NAME.",
)
def new(kind: str, name: str, output: Path | None) -> None:
    """Write a package that adds a backend, protocol, scheduler, exporter or memory provider.

    It installs, serves, and has tests that pass: those of the contract (trivet.testing.conformance), and a place for
    your own. NAME is in lower case with hyphens, and becomes part of the package's name: trivet-KIND-NAME.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise click.BadParameter(
            f"{name!r}: expected lower-case letters, digits and hyphens, such as 'my-format', {_LONGEST} at most",
            param_hint="NAME",
        )
    with suppress(PackageNotFoundError):
        version(f"trivet-{kind}-{name}")
        raise click.ClickException(f"a package trivet-{kind}-{name} is installed already; choose another name")
    for hidden in _hidden(kind, name):
        raise click.ClickException(f"a class of this package would be called as {hidden} is; choose another name")
    folder = output or Path(f"trivet-{kind}-{name}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise click.ClickException(f"'{folder}' is not empty; give another folder with --output")
        folder.mkdir(parents=True, exist_ok=True)
        write(kind, name, folder)
    except OSError as error:
        raise click.ClickException(f"cannot write '{folder}': {error}") from error
    click.echo(f"wrote {folder}; next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest")


def _hidden(kind: str, name: str) -> list[str]:
    """Classes of the contract that the template imports or may come to need, and would hide with its own."""
    module, classes = _CLASSES[kind]
    contract = import_module(module)
    return [f"{module}.{_class_name(name)}{own}" for own in classes if hasattr(contract, _class_name(name) + own)]


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def write(kind: str, name: str, folder: Path) -> None:
    """Write the package of that kind into ``folder``."""
    # Imported here: `trivet serve` loads this module too, and has no use for a template tool.
    import copier  # noqa: PLC0415

    identifier = name.replace("-", "_")
    data = {
        "kind": kind,
        "name": name,
        "identifier": identifier,
        "distribution": f"trivet-{kind}-{name}",
        "module": f"trivet_{kind}_{identifier}",
        "class_name": _class_name(name),
        "kernel_version": ".".join(version("trivet-kernel").split(".")[:2]),
        "api_version": API_VERSION,
    }
    for part in ("common", kind):
        copier.run_copy(str(TEMPLATES), folder, data={**data, "part": part}, defaults=True, quiet=True)
