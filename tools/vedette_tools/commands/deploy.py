"""`vedette deploy` and `vedette uninstall`: the agent on a board, and off it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools import deployment, mpy, project, provisioning, rom
from vedette_tools.board_link import BoardLink, find_port
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port
from vedette_tools.commands.progress import bar, busy
from vedette_tools.deployment import Plan, Start
from vedette_tools.errors import FAILED, ROLLED_BACK, CommandError

START_S = 20


@user_errors
def deploy(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="PROJECT", help="Its folder; without one, the agent alone."),
    ] = None,
    port: Port = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    romfs: Annotated[
        bool, typer.Option("--romfs", help="Into the board's ROMFS partition, if it has one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the agent and the application on a board: what changed only, all of it or nothing.

    The board starts the new version at once. If that does not come up, the one before is put back.
    """
    made = project.load(folder) if folder else None
    report = put(find_port(port), made, dry_run=dry_run, romfs=romfs)
    typer.echo(told(report, as_json=as_json))


def put(
    port: str, made: project.Project | None, *, dry_run: bool = False, romfs: bool = False
) -> dict[str, Any]:
    """Deploys; returns the report. Errors: CommandError."""
    with BoardLink(port) as link:
        with busy("comparing"):
            facts = link.facts()
            march = mpy.architecture_named(facts.mpy, f"the board on {port}")
            if made:
                provisioning.check_board(made.board, facts, port)
            files = deployment.files_for(march, made.folder if made else None)
            plan = (deployment.rom_plan if romfs else deployment.make_plan)(link, files)
        if romfs:
            rom.check_room(link, rom.image(files))
        report = _report(port, facts.machine, plan)
        if dry_run:
            return {**report, "state": "planned"}
        if plan.unchanged:
            return {**report, "state": "unchanged"}
        saved = deployment.save(link, plan)
        if not romfs:
            with bar("sending", plan.size) as progress:
                deployment.apply(link, plan, progress)
            return {**report, **_start(link, saved)}
    rom.write(port, rom.image(files))
    with BoardLink(port) as link:
        deployment.put_in_force(link, plan)
        return {**report, **_start(link, saved)}


def _start(link: BoardLink, saved: deployment.Saved) -> dict[str, str]:
    """Starts what was deployed, and puts back what was before where it does not come up."""
    configured = link.digest(provisioning.CONFIG) is not None
    with busy("starting the board"):
        state, said = deployment.start(link, START_S)
    if not configured:
        said = "there is no config.json yet: `vedette provision` makes it"
        return {"state": "unconfigured", "says": said}
    if state is not Start.FAILS:
        return {"state": state.value, "says": said}
    link.interrupt()
    if deployment.roll_back(link, saved):
        what, code = "the new version does not come up; the one before is in force", ROLLED_BACK
    else:
        what, code = "the version does not come up, and there is none before it", FAILED
    next_step = "`vedette monitor --reset` shows what the board says"
    raise CommandError(what, why=said, next_step=next_step, code=code)


@user_errors
def uninstall(port: Port = None, as_json: AsJson = False) -> None:
    """Remove the agent from a board. Its config.json and the agent's state stay."""
    with busy("removing"), BoardLink(find_port(port)) as link:
        removed = deployment.uninstall(link)
    if as_json:
        typer.echo(json.dumps({"removed": removed}))
    else:
        typer.echo(f"removed: {', '.join(removed)}" if removed else "there was nothing to remove")


def told(report: dict[str, Any], *, as_json: bool) -> str:
    """A report of `put`, for a person or a program."""
    return json.dumps(report) if as_json else "\n".join(_lines(report))


def _report(port: str, machine: str, plan: Plan) -> dict[str, Any]:
    return {
        "port": port,
        "machine": machine,
        "version": plan.version,
        "slot": plan.slot,
        "bytes": plan.size,
        "root": sorted(plan.root),
        "send": plan.send,
        "copy": plan.copy,
        "keep": plan.keep,
        "drop": plan.drop,
    }


def _lines(report: dict[str, Any]) -> list[str]:
    state = report["state"]
    if state == "unchanged":
        return [f"version {report['version']} is on {report['machine']} already"]
    if state == "planned":
        paths = [*report["root"], *report["send"]]
        return [
            f"version {report['version']} would go to {report['slot']} of {report['machine']}:",
            *(f"  send    {path}" for path in paths),
            *(f"  remove  {path}" for path in report["drop"]),
            f"{report['bytes']} bytes in {len(paths)} files; {len(report['copy'])} copied on the "
            f"board, {len(report['keep'])} there already",
        ]
    sent = len(report["root"]) + len(report["send"])
    what = f"version {report['version']} is on {report['machine']}"
    tail = {"runs": "it runs", "refuses": f"the agent does not run: {report['says']}"}
    return [
        f"{what}: {sent} files sent, {report['bytes']} bytes",
        tail.get(state, report["says"]),
    ]
