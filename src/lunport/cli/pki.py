"""``lunport pki``: an authority, and certificates for the service and for hosts.

Works on files alone: it asks nobody, and nobody needs it who has another authority.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lunport.cli.host_options import OUTPUT
from lunport.cli.host_output import print_json
from lunport.core.errors import InvalidConfig

if TYPE_CHECKING:
    from lunport.pki.summary import Summary

DEFAULT_PKI = Path("/etc/lunport/pki")
_SOON_DAYS = 30

_FOLDER = click.Path(path_type=Path, file_okay=False)
_AUTHORITY = click.option(
    "--pki",
    "authority",
    type=_FOLDER,
    default=DEFAULT_PKI,
    show_default=True,
    help="The authority's folder.",
)


def _days(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--days",
        type=click.IntRange(1, 36500),
        default=default,
        show_default=True,
        help="How long it is valid.",
    )


@click.group()
def pki() -> None:
    """Make certificates for the service and for hosts, by an authority of your own."""


@pki.command()
@_AUTHORITY
@click.option("--name", default="Lunport", show_default=True, help="What the authority is called.")
@_days(3650)
@OUTPUT
def init(authority: Path, name: str, days: int, as_json: bool) -> None:
    """Make an authority: its certificate, and its key, which should not be on a host."""
    from lunport.pki.authority import init_authority  # noqa: PLC0415 - cryptography is slow to load

    _show(authority, init_authority(authority, name, days, _now()), as_json=as_json)


@pki.command()
@click.option("--host", "hosts", multiple=True, required=True, help="Whom it names; repeatable.")
@click.option("--address", "addresses", multiple=True, help="An address as well; repeatable.")
@click.option("--out", "folder", type=_FOLDER, required=True, help="The folder to make.")
@_AUTHORITY
@_days(397)
@OUTPUT
def issue(
    hosts: tuple[str, ...],
    addresses: tuple[str, ...],
    folder: Path,
    authority: Path,
    days: int,
    as_json: bool,
) -> None:
    """Make a key and a certificate, for a host's agent or for the service.

    The folder is what `lunport agent --tls` and `[service] tls` take. The host's name is the
    one that its connector declares (`lunport host connector`).
    """
    from lunport.pki import authority as made_by  # noqa: PLC0415 - cryptography is slow to load

    holder = made_by.parse_holder(hosts, addresses)
    _show(folder, made_by.issue(authority, folder, holder, days, _now()), as_json=as_json)


@pki.command()
@click.argument("path", type=click.Path(path_type=Path))
@OUTPUT
def show(path: Path, as_json: bool) -> None:
    """Show a certificate: a file, or the certificates of a folder."""
    from lunport.pki.summary import load_certificate, summarise  # noqa: PLC0415 - as above

    files = sorted(path.glob("c*.pem")) if path.is_dir() else [path]
    files = [file for file in files if not file.name.endswith("-key.pem")]
    if not files:
        raise InvalidConfig("folder of certificates", str(path), "there is none in it")
    for file in files:
        _show(file, summarise(load_certificate(file)), as_json=as_json)


@pki.command()
@click.argument("folder", type=_FOLDER)
@_AUTHORITY
@_days(397)
@OUTPUT
def renew(folder: Path, authority: Path, days: int, as_json: bool) -> None:
    """Sign a folder's certificate anew: the same names, the same key.

    The agent or the service that uses it takes the new one by itself.
    """
    from lunport.pki.authority import renew as sign_anew  # noqa: PLC0415 - as above

    _show(folder, sign_anew(authority, folder, days, _now()), as_json=as_json)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _show(path: Path, summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "path": str(path),
                "subject": summary.subject,
                "issuer": summary.issuer,
                "names": list(summary.names),
                "not_before": summary.not_before.isoformat(),
                "not_after": summary.not_after.isoformat(),
                "serial": summary.serial,
                "fingerprint": summary.fingerprint,
                "authority": summary.is_authority,
            }
        )
        return
    left = summary.days_left(_now())
    state = "expired" if left < 0 else f"{left} days left"
    click.echo(str(path))
    click.echo(
        f"  {'authority' if summary.is_authority else 'names':<11}"
        f"{summary.subject if summary.is_authority else ', '.join(summary.names)}"
    )
    click.echo(f"  issued by  {summary.issuer}")
    click.echo(f"  until      {summary.not_after:%Y-%m-%d %H:%M} UTC, {state}")
    if 0 <= left < _SOON_DAYS:
        click.echo("  renew      soon: lunport pki renew FOLDER")
    click.echo(f"  sha256     {summary.fingerprint}")
