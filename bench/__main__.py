"""Run figures: ``python -m bench [FIGURE ...]``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import asdict

from bench.figures import FIGURES
from bench.load import LoadError
from bench.report import NoisyMachineError, Report
from bench.servers import ServerError
from bench.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Trivet beside its peers. Every figure measures all contenders in turn, several rounds in"
        " one run, and prints the ratios of each round; read those, as absolute numbers belong to one hour.",
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"all of them by default: {', '.join(FIGURES)}")
    parser.add_argument("--list", action="store_true", help="say what each figure measures, and do nothing")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured [5]")
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement [5]")
    parser.add_argument(
        "--quiet",
        type=float,
        default=100,
        metavar="PERCENT",
        help="measure again what was measured while other programs used more of the machine than this [100: never]",
    )
    parser.add_argument("--cycles", type=int, default=1000, help="loads and unloads of the figure churn [1000]")
    parser.add_argument("--models", nargs="+", default=[], help="a backend or models of the figure backends [all]")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - set(FIGURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; choose from {', '.join(FIGURES)}")
    if arguments.list:
        for name in FIGURES:
            print(f"{name:19}{_summary(name)}")
        return 0
    settings = Settings(
        arguments.rounds, arguments.seconds, arguments.cycles, arguments.quiet / 100, tuple(arguments.models)
    )
    failed = [name for name in arguments.figures or FIGURES if not _run(name, settings)]
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, settings: Settings) -> bool:
    """Run one figure and print its table; False where it could not be measured. A missed target is a result."""
    print(f"\n{name}: {_summary(name)}")
    print(f"  load average before: {', '.join(f'{load:.2f}' for load in os.getloadavg())}", flush=True)
    report = Report(name, settings.quiet)
    try:
        importlib.import_module(f"bench.figures.{name}").run(settings, report)
    except (LoadError, ServerError, NoisyMachineError, FileNotFoundError) as error:
        print(f"figure '{name}' failed: {error}", file=sys.stderr)
        return False
    print(f"\n{report.table()}\n\nwritten to {report.save(asdict(settings))}", flush=True)
    return True


def _summary(name: str) -> str:
    return (importlib.import_module(f"bench.figures.{name}").__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
