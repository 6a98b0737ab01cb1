"""What plugins offer, and what is said when one is broken: it is named, and hurts no other."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from trivet import API_VERSION, hookimpl
from trivet.backend import Backend, BackendModel, ModelContext
from trivet.errors import InternalError, InvalidArgumentError, UnavailableError
from trivet.hookspecs import BackendPlugin, SchedulerPlugin
from trivet.options import Option
from trivet.plugins import PluginConflictError, PluginRegistry


class Nothing(Backend):
    def load(self, context: ModelContext) -> BackendModel:
        raise NotImplementedError


def backend(name: str = "b", **fields: Any) -> SimpleNamespace:
    """A plugin that offers one backend."""

    @hookimpl
    def trivet_backends() -> list[BackendPlugin]:
        return [BackendPlugin(name=name, **{"factory": Nothing, **fields})]

    return SimpleNamespace(trivet_backends=trivet_backends)


def test_offers_are_found_by_family_and_name() -> None:
    registry = PluginRegistry.of(one=backend("x"), two=backend("y", options=(Option("y-size", "integer", 1),)))
    assert sorted(registry.backends) == ["x", "y"]
    assert registry.schedulers == {}
    assert [option.key for option in registry.options()] == ["y_size"]
    registry.check()
    assert isinstance(registry.create(registry.backends["x"], Backend), Nothing)


def test_two_offers_of_one_name_name_both_packages() -> None:
    registry = PluginRegistry.of(one=backend(), two=backend())
    with pytest.raises(PluginConflictError, match="two plugins offer the backend 'b': package 'one' and package 'two'"):
        registry.check()


def test_two_plugins_may_share_an_option_but_not_its_name_alone() -> None:
    same = (Option("size", "integer", 1),)
    PluginRegistry.of(one=backend("x", options=same), two=backend("y", options=same)).check()
    other = (Option("size", "string", "big"),)
    with pytest.raises(PluginConflictError, match="define the option '--size' differently"):
        PluginRegistry.of(one=backend("x", options=same), two=backend("y", options=other)).check()


def raising() -> SimpleNamespace:
    @hookimpl
    def trivet_backends() -> list[BackendPlugin]:
        raise OSError("disk on fire")

    return SimpleNamespace(trivet_backends=trivet_backends)


def exiting() -> SimpleNamespace:
    @hookimpl
    def trivet_backends() -> list[BackendPlugin]:
        sys.exit("no licence")

    return SimpleNamespace(trivet_backends=trivet_backends)


def offering_the_wrong_kind() -> SimpleNamespace:
    @hookimpl
    def trivet_backends() -> list[SchedulerPlugin]:
        return [SchedulerPlugin(name="s", factory=Nothing)]

    return SimpleNamespace(trivet_backends=trivet_backends)


def misspelled() -> SimpleNamespace:
    @hookimpl
    def trivet_backend() -> list[BackendPlugin]:
        return []

    return SimpleNamespace(trivet_backend=trivet_backend)


def answering(hook: str, answer: object) -> SimpleNamespace:
    """A plugin whose hook returns what it should not."""

    def function() -> object:
        return answer

    function.__name__ = hook
    return SimpleNamespace(**{hook: hookimpl(function)})


def built_for(version: int) -> SimpleNamespace:
    return SimpleNamespace(TRIVET_API_VERSION=version, **vars(backend()))


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (raising(), "OSError: disk on fire"),
        (exiting(), "SystemExit: no licence"),
        (offering_the_wrong_kind(), "expected a sequence of BackendPlugin"),
        (answering("trivet_exporters", 7), "trivet_exporters returned 7, expected a sequence of ExporterPlugin"),
        (answering("trivet_cli_commands", ["run"]), "returned 'run', expected a sequence of Command"),
        (
            backend(options=(Option("Y size"),)),
            "the option 'Y size' of the kind 'string', expected lower-case",
        ),
        (backend(options=(Option("y", "int"),)), "of the kind 'int', expected"),  # type: ignore[arg-type]
        (
            answering("trivet_backends", [BackendPlugin(name="b", factory=Nothing)] * 2),
            "it offers the backend 'b' twice",
        ),
        (misspelled(), "unknown hook 'trivet_backend'"),
        (built_for(API_VERSION + 1), f"this kernel has {API_VERSION}; pip install --upgrade trivet-kernel"),
        (built_for(API_VERSION - 1), f"this kernel has {API_VERSION}; pip install --upgrade broken"),
    ],
)
def test_a_broken_plugin_is_kept_with_its_reason_and_hurts_no_other(plugin: object, reason: str) -> None:
    registry = PluginRegistry.of(broken=plugin, good=backend("g"))
    broken, _ = registry.plugins
    assert broken.error is not None
    assert reason in broken.error
    assert broken.offers == []
    assert sorted(registry.backends) == ["g"]


def test_a_factory_that_cannot_be_imported_names_its_package() -> None:
    registry = PluginRegistry.of(somebody=backend(factory="trivet.no_such_module:Backend"))
    with pytest.raises(UnavailableError, match="'b' of package 'somebody' cannot be imported: ModuleNotFoundError"):
        registry.create(registry.backends["b"], Backend)


def test_a_factory_that_makes_something_else_names_its_package() -> None:
    registry = PluginRegistry.of(somebody=backend(factory=dict))
    with pytest.raises(
        InternalError, match=r"of package 'somebody' returned {}, expected an instance of trivet.backend.B"
    ):
        registry.create(registry.backends["b"], Backend)


def test_a_backend_is_found_by_name_or_platform() -> None:
    registry = PluginRegistry.of(one=backend("x", platforms=("x_plan",)))
    assert registry.backend_for("x", "").name == "x"
    assert registry.backend_for("", "x_plan").name == "x"
    with pytest.raises(InvalidArgumentError, match="unable to find backend 'y'; installed backends are: x"):
        registry.backend_for("y", "")
    with pytest.raises(InvalidArgumentError, match=r"install it with: pip install 'trivet-backend-onnx\[cpu\]'"):
        registry.backend_for("", "onnxruntime_onnx")
    with pytest.raises(InvalidArgumentError, match="install it with: pip install trivet-scheduler-ensemble"):
        registry.scheduler_for("ensemble_scheduling")
    with pytest.raises(
        InvalidArgumentError, match="unable to find scheduler 'lottery'; installed schedulers are: none"
    ):
        registry.scheduler_for("lottery")


def test_what_is_looked_for_and_failed_to_load_is_told_with_its_reason() -> None:
    registry = PluginRegistry.of(lottery=raising())
    for find in (registry.scheduler_for, lambda name: registry.backend_for(name, "")):
        with pytest.raises(UnavailableError, match="of package 'lottery' failed to load: OSError: disk on fire"):
            find("lottery")
