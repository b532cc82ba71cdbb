"""``lunport probe``: ask one portal what a host would find there, or choose among several.

Needs no root, no kernel module and no service. With a portal alone it lists the targets;
with a target it logs in and out; with a LUN it looks at the unit as well. With a connection
info it makes the choice that connecting would make. Secrets come from files, never from
the command line.
"""

from __future__ import annotations

import json
from typing import IO

import click

from lunport.cli.connection_file import read_connection_info
from lunport.cli.exit_codes import exit_code_of
from lunport.core.chap import Chap, ChapCredentials, parse_chap_credentials
from lunport.core.connection_info import ConnectionInfo
from lunport.core.disk_source import iscsi_uri, make_disk_source, qemu_options
from lunport.core.errors import (
    AllPathsFailed,
    InvalidInput,
    IscsiError,
    LunportError,
)
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.iscsi_text import DiscoveredTarget
from lunport.core.portal import parse_portal
from lunport.core.probe_outcome import ProbeOutcome, outcome_error
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.wwid import parse_wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.initiator_name import FILE, read_initiator_name
from lunport.host.portal_probe import discover_targets, probe_path
from lunport.initiator.portal_choice import PathChoice, choose_path

_MAX_INPUT = 1 << 20
_OBJECT_ID = "chap"  # of the secret in QEMU


@click.command()
@click.argument("portal", required=False)
@click.option("--iqn", metavar="IQN", help="Log in to this target.")
@click.option("--lun", metavar="N", help="Look at this unit: presence, identity, size.")
@click.option("--wwid", metavar="WWID", help="What the unit must say it is; needs --lun.")
@click.option("--initiator", metavar="IQN", help=f"Who asks [default: as {FILE} says].")
@click.option("--chap-user", metavar="NAME", help="Prove ourselves by this name.")
@click.option("--chap-password-file", type=click.File(), help="Its secret; - is stdin.")
@click.option("--mutual-user", metavar="NAME", help="Let the target prove itself by this name.")
@click.option("--mutual-password-file", type=click.File(), help="Its secret; - is stdin.")
@click.option(
    "--connection-info",
    "info_file",
    type=click.File(),
    help="Choose among the paths of this connection info (JSON); - is stdin.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.01, max=600),
    default=15.0,
    show_default=True,
    help="Seconds for all of it.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@click.pass_context
def probe(
    context: click.Context,
    portal: str | None,
    iqn: str | None,
    lun: str | None,
    wwid: str | None,
    initiator: str | None,
    chap_user: str | None,
    chap_password_file: IO[str] | None,
    mutual_user: str | None,
    mutual_password_file: IO[str] | None,
    info_file: IO[str] | None,
    timeout_s: float,
    output: str,
) -> None:
    """Ask PORTAL (address[:port]) what a host would find there.

    The exit status is 0 for a usable path, 3 when target or unit are not there, 5 when
    nobody answers, 6 when credentials or this host are refused, 7 after the timeout, 9 for
    another unit than the promised one.
    """
    if (portal is None) == (info_file is None):
        raise click.UsageError("Give a PORTAL or --connection-info, one of them.")
    if (lun is not None and iqn is None) or (wwid is not None and lun is None):
        raise click.UsageError("--lun needs --iqn, and --wwid needs --lun.")
    if timeout_s != timeout_s:  # noqa: PLR0124 - "nan" passes every range
        raise click.UsageError("--timeout is a number of seconds.")
    as_json = output == "json"
    deadline = Deadline.after(timeout_s)
    who = _initiator(initiator)
    if info_file is not None:
        if (iqn, chap_user, mutual_user) != (None, None, None):
            raise click.UsageError("--connection-info holds target and credentials already.")
        context.exit(_choose(read_connection_info(info_file), who, deadline, as_json=as_json))
    assert portal is not None
    chap = _chap(chap_user, chap_password_file, mutual_user, mutual_password_file)
    where = parse_portal(portal)
    if iqn is None:
        _show_targets(discover_targets(where, who, chap, deadline=deadline), as_json=as_json)
        return
    path = TargetPath(where, parse_iqn(iqn), parse_lun(lun) if lun is not None else 0)
    outcome = probe_path(
        path,
        who,
        chap,
        expected_wwid=parse_wwid(wwid) if wwid is not None else None,
        check_lun=lun is not None,
        deadline=deadline,
    )
    error = outcome_error(outcome, str(path))
    _show_outcome(path, outcome, has_lun=lun is not None, as_json=as_json)
    context.exit(exit_code_of(error) if error is not None else 0)


def _choose(info: ConnectionInfo, who: Iqn, deadline: Deadline, *, as_json: bool) -> int:
    try:
        choice = choose_path(
            info.paths,
            who,
            chap=info.chap,
            wwid=info.wwid,
            memory=DeadPortals(),
            deadline=deadline,
            addressing_mode=info.addressing_mode,
        )
    except IscsiError as error:
        _show_failure(error, as_json=as_json)
        return exit_code_of(error)
    _show_choice(choice, info, who, as_json=as_json)
    return 0


# -- reading -----------------------------------------------------------------------------------


def _initiator(given: str | None) -> Iqn:
    if given is not None:
        return parse_iqn(given, what="initiator")
    name = read_initiator_name()
    if name is None:
        raise click.UsageError(f"There is no {FILE}: say who asks with --initiator.")
    return name


def _chap(
    user: str | None,
    password: IO[str] | None,
    mutual_user: str | None,
    mutual_password: IO[str] | None,
) -> Chap | None:
    ours = _credentials("chap", user, password)
    theirs = _credentials("mutual", mutual_user, mutual_password)
    if ours is None and theirs is not None:
        raise click.UsageError("The target proves itself only to a host that does: --chap-user.")
    return Chap(ours, theirs) if ours is not None else None


def _credentials(prefix: str, user: str | None, password: IO[str] | None) -> ChapCredentials | None:
    if user is None and password is None:
        return None
    if user is None or password is None:
        raise click.UsageError(f"--{prefix}-user and --{prefix}-password-file come together.")
    return parse_chap_credentials(user, password.read(_MAX_INPUT).rstrip("\r\n"), what=prefix)


# -- showing -----------------------------------------------------------------------------------


def _show_targets(targets: tuple[DiscoveredTarget, ...], *, as_json: bool) -> None:
    if as_json:
        _print_json([{"portal": str(t.portal), "tpgt": t.tpgt, "iqn": str(t.iqn)} for t in targets])
        return
    if not targets:
        click.echo("The portal answers, and shows this host no target.")
    for target in targets:
        click.echo(f"{target.portal},{'-' if target.tpgt is None else target.tpgt} {target.iqn}")


def _show_outcome(path: TargetPath, outcome: ProbeOutcome, *, has_lun: bool, as_json: bool) -> None:
    if as_json:
        _print_json(_outcome_fields(path, outcome))
        return
    click.echo(f"{path.portal}  {outcome.verdict.value}")
    rows = [("target", str(path.iqn) + (f" lun {path.lun}" if has_lun else ""))]
    if outcome.detail:
        rows.append(("detail", outcome.detail))
    if outcome.redirected_to is not None:
        rows.append(("redirected to", str(outcome.redirected_to)))
    _show_rows([*rows, *_facts(outcome)])


def _show_choice(choice: PathChoice, info: ConnectionInfo, who: Iqn, *, as_json: bool) -> None:
    qemu, uri, obstacle = _disk(choice.path, info, who)
    if as_json:
        unused = [
            {"path": _path_fields(one.path), "reason": one.reason}
            | ({"verdict": one.outcome.verdict.value} if one.outcome is not None else {})
            for one in choice.unused
        ]
        _print_json(
            {
                "used": _outcome_fields(choice.path, choice.outcome),
                "unused": unused,
                "qemu": qemu,
                "uri": uri,
                "elapsed_s": round(choice.elapsed_s, 6),
            }
        )
        return
    click.echo(f"use       {choice.path}")
    for one in choice.unused:
        click.echo(f"not used  {one.path}: {one.reason}")
    _show_rows(
        [
            *_facts(choice.outcome),
            ("chosen in", f"{choice.elapsed_s:.3f} s"),
            ("qemu", qemu if qemu is not None else f"none: {obstacle}"),
            ("uri", uri if uri is not None else f"none: {obstacle}"),
        ]
    )


def _show_failure(error: LunportError, *, as_json: bool) -> None:
    attempts = error.attempts if isinstance(error, AllPathsFailed) else (error,)
    if as_json:
        _print_json({"used": None, "errors": [str(attempt) for attempt in attempts]})
        return
    click.echo("No path can be used.")
    for attempt in attempts:
        click.echo(f"not used  {attempt}")


def _show_rows(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        click.echo(f"  {name:<14}{value}")


def _facts(outcome: ProbeOutcome) -> list[tuple[str, str]]:
    facts = []
    if outcome.wwid is not None:
        facts.append(("identity", str(outcome.wwid)))
    if outcome.size_bytes is not None:
        facts.append(("size", f"{outcome.size_bytes} bytes"))
    if outcome.connect_s is not None:
        facts.append(("round trip", f"{outcome.connect_s * 1000:.2f} ms"))
    facts.append(("took", f"{outcome.elapsed_s * 1000:.2f} ms"))
    return facts


def _disk(path: TargetPath, info: ConnectionInfo, who: Iqn) -> tuple[str | None, str | None, str]:
    """Return QEMU's option string, the URI, and why there is none.

    The secret is named, not shown: ``--object secret,id=chap,file=...`` brings it. By URI QEMU
    logs in under a name of its own, which an access list may not know.
    """
    qemu = None
    try:
        source = make_disk_source(path, who, info.chap)
        qemu = qemu_options(source, secret_id=None if info.chap is None else _OBJECT_ID)
        return qemu, iscsi_uri(path), ""
    except InvalidInput as error:
        return qemu, None, error.reason


def _path_fields(path: TargetPath) -> dict[str, object]:
    return {"portal": str(path.portal), "iqn": str(path.iqn), "lun": path.lun}


def _outcome_fields(path: TargetPath, outcome: ProbeOutcome) -> dict[str, object]:
    moved = outcome.redirected_to
    return {
        **_path_fields(path),
        "verdict": outcome.verdict.value,
        "detail": outcome.detail,
        "wwid": outcome.wwid,
        "size_bytes": outcome.size_bytes,
        "connect_s": None if outcome.connect_s is None else round(outcome.connect_s, 6),
        "elapsed_s": round(outcome.elapsed_s, 6),
        "redirected_to": None if moved is None else str(moved),
    }


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
