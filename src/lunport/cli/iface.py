"""``lunport iface``: the ways out of this host that iSCSI sessions can take.

Shows open-iscsi's iface records, says of each whether this host's hardware lets it be used, makes
records of a transport and a hardware address, and takes its own away. Never changes a record
that is not ours.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from lunport.cli.exit_codes import ExitCode
from lunport.cli.host_options import OUTPUT, TIMEOUT, deadline
from lunport.cli.host_output import print_json
from lunport.cli.path_options import all_of
from lunport.core.change import Change
from lunport.core.iface import (
    MADE_BY_COMMAND,
    Iface,
    check_iface_name,
    parse_address,
    parse_hwaddress,
    parse_net_device,
    parse_transport_name,
)
from lunport.core.iface_check import Finding, Level, Verdict, check_iface
from lunport.core.iface_choice import iface_of_tuple
from lunport.core.iface_hardware import HostHardware
from lunport.host.iface_records import IfaceRecord
from lunport.initiator.ifaces import Ifaces
from lunport.initiator.initiator_host import InitiatorHost

_COLUMNS = "{:<36} {:<9} {:<18} {:<16} {:<10} {}"


@click.group()
@click.pass_context
def iface(context: click.Context) -> None:
    """See, check, make and remove the ifaces of this host."""
    context.obj = context.obj or Ifaces(InitiatorHost())


@iface.command("list")
@click.option("--generate", is_flag=True, help="Have iscsiadm make the adapters' records first.")
@all_of(TIMEOUT, OUTPUT)
@click.pass_obj
def list_(ifaces: Ifaces, generate: bool, timeout_s: float, as_json: bool) -> None:
    """List the ifaces, and whether each can be used."""
    until = deadline(timeout_s)
    if generate:
        ifaces.generate(until)
    hardware = ifaces.hardware(until)
    found = [(one, _judge(one, hardware)) for one in ifaces.all()]
    if as_json:
        print_json({"ifaces": [_fields(one, verdict) for one, verdict in found]})
        return
    click.echo(_COLUMNS.format("name", "transport", "hwaddress", "ipaddress", "device", "usable"))
    for one, verdict in found:
        made = one.iface or Iface(one.name, "?")
        columns = (made.hwaddress, made.ipaddress, made.net_ifacename)
        usable = "yes" if verdict.is_usable else f"no: {verdict.why_not}"
        shown = (value or "-" for value in columns)
        click.echo(_COLUMNS.format(one.name, made.transport, *shown, usable))


@iface.command()
@click.argument("name")
@all_of(TIMEOUT, OUTPUT)
@click.pass_obj
def show(ifaces: Ifaces, name: str, timeout_s: float, as_json: bool) -> None:
    """Show one iface: its record, what is found about it, and what uses it."""
    one = ifaces.get(name)
    verdict = _judge(one, ifaces.hardware(deadline(timeout_s)))
    users = list(ifaces.users(name))
    if as_json:
        print_json({**_fields(one, verdict), "users": users})
        return
    for key, value in _fields(one, verdict).items():
        if key != "findings":
            click.echo(f"{key:<16}{'-' if value is None else value}")
    _show_findings(verdict)
    for user in users:
        click.echo(f"{'used by':<16}{user}")


@iface.command()
@click.option("--transport", help="tcp, iser, cxgb4i, ... [default: what the address says].")
@click.option("--hwaddress", metavar="MAC", help="The adapter's or network device's address.")
@click.option("--device", metavar="NAME", help="The network device, instead of --hwaddress.")
@click.option("--ipaddress", metavar="ADDRESS", help="What the adapter takes for itself.")
@click.option("--source", metavar="ADDRESS", help="An address of this host: all else follows.")
@click.option("--name", help="What it is called [default: TRANSPORT.MAC].")
@click.option("--force", is_flag=True, help="Also one that this host's hardware contradicts.")
@all_of(TIMEOUT, OUTPUT)
@click.pass_obj
def create(
    ifaces: Ifaces,
    transport: str | None,
    hwaddress: str | None,
    device: str | None,
    ipaddress: str | None,
    source: str | None,
    name: str | None,
    force: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Make an iface of a transport, a hardware address and an IP address, or of a source address.

    One that the hardware contradicts is refused. Repeating it changes nothing.
    """
    hardware = ifaces.hardware(deadline(timeout_s))
    if source is not None:
        if any((transport, hwaddress, device, ipaddress)):
            raise click.UsageError("--source says all of it; give nothing else but --name.")
        made = ifaces.of_source(parse_address(source), hardware)
        if name is not None:
            made = Iface(name, made.transport, made.hwaddress, made.ipaddress, made.net_ifacename)
    else:
        made = _of_options(transport, hwaddress, device, ipaddress, name, hardware)
    change = ifaces.create(made, hardware, force=force)
    if as_json:
        print_json({"change": change.value, **asdict(made)})
    else:
        click.echo(made.name if change is Change.CHANGED else f"{made.name} was there already.")


@iface.command()
@click.argument("name", required=False)
@all_of(TIMEOUT, OUTPUT)
@click.pass_context
def check(context: click.Context, name: str | None, timeout_s: float, as_json: bool) -> None:
    """Say of NAME, or of every iface, what this host's hardware says against it.

    The exit status is 1 when NAME can't be used.
    """
    ifaces: Ifaces = context.obj
    hardware = ifaces.hardware(deadline(timeout_s))
    records = ifaces.all() if name is None else (ifaces.get(name),)
    found = [(one, _judge(one, hardware)) for one in records]
    if as_json:
        print_json({"ifaces": [_fields(one, verdict) for one, verdict in found]})
    else:
        for one, verdict in found:
            click.echo(f"{one.name}: {'can be used' if verdict.is_usable else 'can NOT be used'}")
            _show_findings(verdict)
    is_bad = any(not verdict.is_usable for _, verdict in found)
    context.exit(ExitCode.FAILED if is_bad and name is not None else ExitCode.OK)


@iface.command()
@click.argument("name")
@OUTPUT
@click.pass_obj
def delete(ifaces: Ifaces, name: str, as_json: bool) -> None:
    """Take away an iface that Lunport made and nothing uses. Repeating it changes nothing."""
    change = ifaces.delete(name)
    if as_json:
        print_json({"change": change.value})
    else:
        click.echo("Deleted." if change is Change.CHANGED else "There is none.")


# -- parts ---------------------------------------------------------------------------------------


def _of_options(
    transport: str | None,
    hwaddress: str | None,
    device: str | None,
    ipaddress: str | None,
    name: str | None,
    hardware: HostHardware,
) -> Iface:
    if transport is None or (hwaddress is None) == (device is None):
        raise click.UsageError("Give --source, or --transport and one of --hwaddress and --device.")
    kind = parse_transport_name(transport)
    address = None if ipaddress is None else parse_address(ipaddress)
    if hwaddress is not None:
        return iface_of_tuple(kind, parse_hwaddress(hwaddress), address, name)
    assert device is not None
    found = hardware.device_of(None, parse_net_device(device))
    mac = None if found is None else found.hwaddress
    called = name or f"{kind}.{mac or device}"
    check_iface_name(called)
    return Iface(called, kind, None, address, device)


def _judge(one: IfaceRecord, hardware: HostHardware) -> Verdict:
    if one.iface is not None:
        return check_iface(one.iface, hardware)
    damage = Finding(Level.ERROR, (one.damage or "its record can't be read").rstrip("."))
    return Verdict(Iface(one.name, "?"), (damage,))


def _fields(one: IfaceRecord, verdict: Verdict) -> dict[str, object]:
    fields = asdict(verdict.iface)
    made = {None: None, MADE_BY_COMMAND: "by command"}.get(one.heading, "on the fly")
    return {
        **fields,
        "made": "built in" if verdict.iface.is_built_in else made or "by others",
        "is_usable": verdict.is_usable,
        "findings": [{"level": f.level.value, "text": f.text} for f in verdict.findings],
    }


def _show_findings(verdict: Verdict) -> None:
    for finding in verdict.findings:
        click.echo(f"  {finding.level.value}: {finding.text}")
