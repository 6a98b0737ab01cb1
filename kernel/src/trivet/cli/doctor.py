"""``trivet doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from trivet.cli.output import console
from trivet.cli.registry import installed

if TYPE_CHECKING:
    from trivet.cli.diagnosis import Finding


@click.command(short_help="Show versions, frameworks, GPUs and ports, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show what this machine has to serve with, what is missing, and how to get it.

    Looks for frameworks without importing them. The exit status is 1 when something keeps the server from starting or a
    backend from working.
    """
    from trivet.cli.diagnosis import diagnose  # noqa: PLC0415 - only this command asks the operating system things

    findings = list(diagnose(installed(ctx)))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if any(finding.status == "problem" for finding in findings):
        ctx.exit(1)


def _print(findings: Iterable[Finding]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    styles = {"ok": "green", "note": "yellow", "problem": "red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Area", "What", "", "Details"):
        table.add_column(column, overflow="fold")
    area = ""
    for finding in findings:
        details = Text(finding.details)
        if finding.fix:
            details.append(f"\n-> {finding.fix}" if finding.details else f"-> {finding.fix}", style="bold")
        shown = finding.area if finding.area != area else ""
        table.add_row(shown, finding.what, Text(finding.status, style=styles[finding.status]), details)
        area = finding.area
    console().print(table)
