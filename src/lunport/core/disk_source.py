"""The chosen path as QEMU and libvirt want it written, never with the secret in it.

    QEMU     driver=iscsi,transport=tcp,portal=10.0.0.1:3260,target=iqn...,lun=1,
             initiator-name=iqn...,user=u,password-secret=lunport-chap
    libvirt  <source protocol='iscsi' name='iqn.../1'>...</source>
    URI      iscsi://10.0.0.1:3260/iqn.../1

The secret travels beside it: as a QEMU ``secret`` object read from a file
(:mod:`lunport.host.qemu_secret`), or in libvirt's secret store. QEMU's initiator (libiscsi)
has no mutual CHAP, so a source that demands it is refused. Sources: QEMU's
qapi/block-core.json (BlockdevOptionsIscsi), libvirt's formatdomain, libiscsi's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from lunport.core.chap import Chap
from lunport.core.errors import InvalidConnectionInfo
from lunport.core.iqn import Iqn
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport


@dataclass(frozen=True, slots=True)
class DiskSource:
    """One path, who logs in to it, and under which CHAP name if any."""

    path: TargetPath
    initiator: Iqn
    username: str | None


def make_disk_source(path: TargetPath, initiator: Iqn, chap: Chap | None) -> DiskSource:
    """Check that QEMU's initiator can do what is asked, and keep all but the secret.

    Raises: InvalidConnectionInfo for mutual CHAP and for a portal that is not an address.
    """
    if chap is not None and chap.mutual is not None:
        raise InvalidConnectionInfo(
            "mutual_auth_username",
            chap.mutual.username,
            "QEMU's initiator cannot make the target prove itself; use the host's initiator",
        )
    if not path.portal.is_literal:
        raise InvalidConnectionInfo(
            "target_portal", str(path.portal), "expected an address, not a name"
        )
    return DiskSource(path, initiator, chap.initiator.username if chap is not None else None)


def iscsi_uri(path: TargetPath) -> str:
    """Format a path as libiscsi's URI, without credentials.

    Raises: InvalidConnectionInfo for a name that the URI cannot hold: libiscsi splits at ``/``,
    ``?`` and ``@`` and decodes nothing.
    """
    if any(mark in path.iqn for mark in "/?@"):
        raise InvalidConnectionInfo("target_iqn", path.iqn, "an iscsi:// URI cannot hold / ? or @")
    scheme = "iser" if path.transport is Transport.ISER else "iscsi"
    return f"{scheme}://{path.portal}/{path.iqn}/{path.lun}"


def qemu_options(source: DiskSource, *, secret_id: str | None) -> str:
    """Format QEMU's option string, for ``-blockdev`` or ``--image-opts``.

    ``secret_id`` names the secret object; it is required exactly when there is a CHAP name.
    """
    return format_options(qemu_blockdev(source, secret_id=secret_id))


def qemu_blockdev(source: DiskSource, *, secret_id: str | None) -> dict[str, str]:
    """Return QEMU's block device options as keys and values (BlockdevOptionsIscsi)."""
    if (source.username is None) != (secret_id is None):
        raise InvalidConnectionInfo(
            "auth_username", source.username, "a CHAP name and a secret come together"
        )
    options = {
        "driver": "iscsi",
        "transport": source.path.transport.value,
        "portal": str(source.path.portal),
        "target": str(source.path.iqn),
        "lun": str(source.path.lun),
        "initiator-name": str(source.initiator),
    }
    if source.username is not None and secret_id is not None:
        options |= {"user": source.username, "password-secret": secret_id}
    return options


def qemu_secret_options(secret_id: str, file: str) -> str:
    """Format the ``--object`` argument of a secret that QEMU reads from a file."""
    return "secret," + format_options({"id": secret_id, "format": "raw", "file": file})


def format_options(options: dict[str, str]) -> str:
    """Join keys and values as QEMU's option parser reads them: a comma in a value is doubled."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())


def libvirt_source(source: DiskSource, *, secret_uuid: str | None) -> str:
    """Format the ``<source>`` element of a ``<disk type='network'>``.

    ``secret_uuid`` names the secret in libvirt's store; it is required exactly when there is
    a CHAP name. Raises: InvalidConnectionInfo, also for iSER, which libvirt cannot express.
    """
    if source.path.transport is not Transport.TCP:
        raise InvalidConnectionInfo(
            "target_transports", source.path.transport.value, "libvirt's iscsi disks are TCP only"
        )
    if (source.username is None) != (secret_uuid is None):
        raise InvalidConnectionInfo(
            "auth_username", source.username, "a CHAP name and a secret come together"
        )
    portal = source.path.portal
    lines = [
        f"<source protocol='iscsi' name={_quoted(f'{source.path.iqn}/{source.path.lun}')}>",
        f"  <host name={_quoted(portal.host)} port='{portal.port}'/>",
    ]
    if source.username is not None and secret_uuid is not None:
        lines += [
            f"  <auth type='chap' username={_quoted(source.username)}>",
            f"    <secret type='iscsi' uuid={_quoted(secret_uuid)}/>",
            "  </auth>",
        ]
    lines += [
        "  <initiator>",
        f"    <iqn name={_quoted(source.initiator)}/>",
        "  </initiator>",
        "</source>",
    ]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return f"'{escape(value)}'"
