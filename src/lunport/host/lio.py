"""The kernel's iSCSI target (LIO) through configfs: look at its objects, make and remove them.

    /sys/kernel/config/target/core/iblock_611/lunport-DIGITS/{control,enable,wwn,attrib,...}
    /sys/kernel/config/target/iscsi/IQN/tpgt_1/{acls,attrib,enable,lun,np,param}

The only module that knows this tree. Each object is looked at and changed by itself; what shall
be there, and in which order, is decided in ``targets/lio.py``. The tree of others is not read,
``saveconfig.json`` neither. Failures are OSError, with paths and never a value that was written.

Source: ``drivers/target/target_core_configfs.c``, ``target_core_fabric_configfs.c`` and
``iscsi/iscsi_target_configfs.c`` of the kernel, 6.1.

Quirk(rtslib): none of it is used (rtslib-fb 2.2.4; docs/adr/0013). A secret that the kernel refuses
is dropped in silence and the ACL is left without one (``_set_auth_attr(..., ignore=True)``), names
of initiators with ``_`` are refused, the mere making of ``RTSRoot`` rewrites the kernel's
``dbroot``, and removing a storage object reads every target of every fabric.

Quirk(LIO): a portal whose address this host does not have can be made (``IP_FREEBIND``), and
serves from the moment the address is there. One whose port somebody else has fails with EINVAL;
EADDRINUSE is only in the kernel's log.
Quirk(LIO): an initiator's name is folded to lower case at the login, the ACL's is compared as it
was written: an ACL in capitals lets nobody in.
Quirk(LIO): a name or secret that begins with ``NULL`` is taken for "none" (``strncmp``, 4 bytes).
Quirk(LIO): the write cache that an iblock device reports is that of the block device behind it;
``emulate_write_cache`` cannot be written there (EINVAL).
Quirk(LIO): a LUN whose link to its device was removed takes all mappings with it; their folders
and links stay, dead. A dead mapping's ``write_protect`` is empty; it works once it is linked anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lunport.core.chap import Chap
from lunport.core.secret import Secret

ROOT = Path("/sys/kernel/config/target")
HBA = "iblock_611"
DEVICE_PREFIX = "lunport-"
MODULES = ("target_core_mod", "iscsi_target_mod", "target_core_iblock", "loop")
NO_AUTH = "0"
INHERITED_AUTH = "-1"

_LINK = "lunport"
_NULL = "NULL"
_NONE = Secret("")
_NUMBER = re.compile(r"Major: (\d+) Minor: (\d+)  CLAIMED")
_MAX_SHOWN_PATH = 511
_AUTH = ("userid", "password", "userid_mutual", "password_mutual")


@dataclass(frozen=True, slots=True)
class LioAuth:
    """What an ACL demands and answers; an empty string is "none"."""

    username: str = ""
    password: Secret = _NONE
    mutual_username: str = ""
    mutual_password: Secret = _NONE

    @classmethod
    def of(cls, chap: Chap | None) -> LioAuth:
        """Say credentials in LIO's four words."""
        if chap is None:
            return cls()
        one = chap.initiator
        if chap.mutual is None:
            return cls(one.username, one.password)
        return cls(one.username, one.password, chap.mutual.username, chap.mutual.password)

    def is_misread(self) -> bool:
        """Tell whether LIO would take a name or secret for none."""
        words = (self.username, self.password.reveal())
        mutual = (self.mutual_username, self.mutual_password.reveal())
        return any(word.startswith(_NULL) for word in words + mutual)


@dataclass(frozen=True, slots=True)
class LioAcl:
    """An initiator that may log in: whether by CHAP, and what it sees.

    ``demands`` is the ACL's own ``authentication``, None where the kernel has none (before 6.1).
    ``mapped`` gives the target's LUN behind each LUN that the initiator sees, None where nothing
    is or it was dead, and ``protected`` those that it cannot write to.
    """

    auth: LioAuth
    demands: str | None
    mapped: Mapping[int, int | None]
    protected: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LioTarget:
    """A target as configfs has it; ``acls`` by initiator, ``luns`` the device behind each."""

    has_group: bool = False
    is_enabled: bool = False
    alias: str = ""
    attributes: Mapping[str, str | None] = field(default_factory=dict)
    portals: frozenset[str] = frozenset()
    luns: Mapping[int, Path | None] = field(default_factory=dict)
    acls: Mapping[str, LioAcl] = field(default_factory=dict)
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class LioDevice:
    """A backstore as configfs has it: its block device once it is enabled, and what it says.

    ``image`` is the note of what it was made for; only the block device counts.
    """

    number: int | None
    serial: str
    image: Path | None
    unmaps: bool


class LioTree:
    """LIO's part of configfs. Every call looks anew; nothing is remembered."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._iscsi = root / "iscsi"
        self._hba = root / "core" / HBA

    # -- the fabric ------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Tell whether LIO has its iSCSI part ready."""
        return self._iscsi.is_dir()

    def add_fabric(self) -> None:
        """Make the folder of all iSCSI targets. Raises: OSError (ENOENT: no module)."""
        self._iscsi.mkdir(exist_ok=True)

    def remove_fabric(self) -> bool:
        """Take the folder of all targets away if it is empty; tell whether it went.

        It stays while it demands CHAP of discovery sessions: somebody set that.
        """
        with contextlib.suppress(OSError):
            self._hba.rmdir()
        try:
            if _read(self._iscsi / "discovery_auth/enforce_discovery_auth") == "1":
                return False
            self._iscsi.rmdir()
        except OSError:
            return False
        return True

    def listens_on(self, portal: str) -> bool:
        """Tell whether any target, ours or not, has that portal; looks at all of them."""
        return any(True for _ in self._iscsi.glob(f"*/tpgt_*/np/{_escaped(portal)}"))

    def target_names(self, prefix: str) -> tuple[str, ...]:
        """List the targets whose names begin so, in order. Raises: OSError."""
        with os.scandir(self._iscsi) as entries:
            return tuple(sorted(one.name for one in entries if one.name.startswith(prefix)))

    # -- a target --------------------------------------------------------------------------

    def target(self, iqn: str, attributes: tuple[str, ...] = ()) -> LioTarget | None:
        """Look at one target and no other; None when it is not there. Raises: OSError."""
        place = self._iscsi / iqn
        if not place.is_dir():
            return None
        group = place / "tpgt_1"
        if not group.is_dir():
            return LioTarget()
        return LioTarget(
            has_group=True,
            is_enabled=_read(group / "enable") == "1",
            alias=_read(group / "param/TargetAlias"),
            attributes={name: _try_read(group / "attrib" / name) for name in attributes},
            portals=frozenset(_names(group / "np")),
            luns={lun: _linked(group / "lun" / f"lun_{lun}") for lun in _numbers(group / "lun")},
            acls={name: _acl(group / "acls" / name) for name in _names(group / "acls")},
            sessions=int(_read(place / "fabric_statistics/iscsi_instance/sessions") or 0),
        )

    def alias(self, iqn: str) -> str | None:
        """Return a target's alias; None when there is no target, or it has no group yet."""
        return _try_read(self._group(iqn) / "param/TargetAlias")

    def add_target(self, iqn: str) -> None:
        """Make a target and its group, closed. Raises: OSError."""
        (self._iscsi / iqn).mkdir(exist_ok=True)
        self._group(iqn).mkdir(exist_ok=True)

    def set_alias(self, iqn: str, alias: str) -> None:
        """Write what the target calls itself at a login. Raises: OSError."""
        _write(self._group(iqn) / "param/TargetAlias", alias)

    def set_attribute(self, iqn: str, name: str, value: str) -> None:
        """Write one attribute of the group. Raises: OSError."""
        _write(self._group(iqn) / "attrib" / name, value)

    def set_enabled(self, iqn: str, *, enabled: bool) -> None:
        """Let logins in; or refuse them and drop all sessions. Raises: OSError."""
        _write(self._group(iqn) / "enable", "1" if enabled else "0")

    def add_portal(self, iqn: str, portal: str) -> None:
        """Listen on a portal, in the network namespace of the caller. Raises: OSError."""
        (self._group(iqn) / "np" / portal).mkdir(exist_ok=True)

    def remove_portal(self, iqn: str, portal: str) -> None:
        """Listen there no more, unless another target does. Raises: OSError."""
        _remove_folder(self._group(iqn) / "np" / portal)

    def remove_target(self, iqn: str) -> None:
        """Take a target away with all that is in it; the devices stay. Raises: OSError.

        Its sessions are gone when this returns.
        """
        group = self._group(iqn)
        if group.is_dir():
            if _read(group / "enable") == "1":
                self.set_enabled(iqn, enabled=False)
            for initiator in _names(group / "acls"):
                self.remove_acl(iqn, initiator)
            for lun in _numbers(group / "lun"):
                self.remove_lun(iqn, lun)
            for portal in _names(group / "np"):
                _remove_folder(group / "np" / portal)
            _remove_folder(group)
        _remove_folder(self._iscsi / iqn)

    # -- units of a target -----------------------------------------------------------------

    def lun_device(self, iqn: str, lun: int) -> Path | None:
        """Return the place of the device behind a LUN; None when there is none."""
        return _linked(self._lun(iqn, lun))

    def add_lun(self, iqn: str, lun: int, device: Path) -> None:
        """Put a device behind a LUN, which nobody sees yet. Raises: OSError."""
        place = self._lun(iqn, lun)
        place.mkdir(exist_ok=True)
        (place / _LINK).symlink_to(device)

    def remove_lun(self, iqn: str, lun: int) -> None:
        """Take a LUN away; what it has accepted is done when this returns. Raises: OSError.

        Precondition: no ACL maps it.
        """
        _remove_linked(self._lun(iqn, lun))

    # -- initiators of a target ------------------------------------------------------------

    def acl(self, iqn: str, initiator: str) -> LioAcl | None:
        """Look at one initiator's ACL; None when there is none. Raises: OSError."""
        place = self._acl(iqn, initiator)
        return _acl(place) if place.is_dir() else None

    def initiators(self, iqn: str) -> tuple[str, ...]:
        """List who has an ACL. Raises: OSError."""
        return tuple(_names(self._group(iqn) / "acls"))

    def add_acl(self, iqn: str, initiator: str) -> None:
        """Make an ACL; it lets nobody in before it is told how. Raises: OSError."""
        self._acl(iqn, initiator).mkdir(exist_ok=True)

    def set_demands(self, iqn: str, initiator: str, demands: str) -> None:
        """Say whether this initiator has to authenticate itself. Raises: OSError."""
        _write(self._acl(iqn, initiator) / "attrib/authentication", demands)

    def set_auth(self, iqn: str, initiator: str, auth: LioAuth) -> None:
        """Write an ACL's credentials; sessions stay, the next login needs them. Raises: OSError.

        Meanwhile some of the old and some of the new are there: such a login fails.
        """
        place = self._acl(iqn, initiator) / "auth"
        _write(place / "userid", auth.username or _NULL)
        _write(place / "password", auth.password.reveal() or _NULL)
        _write(place / "userid_mutual", auth.mutual_username or _NULL)
        _write(place / "password_mutual", auth.mutual_password.reveal() or _NULL)

    def map_lun(self, iqn: str, initiator: str, lun: int) -> None:
        """Show a LUN of the target to an initiator, under its number. Raises: OSError."""
        place = self._acl(iqn, initiator) / f"lun_{lun}"
        place.mkdir(exist_ok=True)
        for link in _links(place):
            (place / link).unlink()
        (place / _LINK).symlink_to(self._lun(iqn, lun))

    def unprotect(self, iqn: str, initiator: str, lun: int) -> None:
        """Let an initiator write to a LUN that it sees. Raises: OSError."""
        _write(self._acl(iqn, initiator) / f"lun_{lun}" / "write_protect", "0")

    def unmap_lun(self, iqn: str, initiator: str, lun: int) -> bool:
        """Hide a LUN from an initiator: its commands fail from now on. Raises: OSError."""
        return _remove_linked(self._acl(iqn, initiator) / f"lun_{lun}")

    def remove_acl(self, iqn: str, initiator: str) -> bool:
        """Refuse an initiator; its sessions are gone when this returns. Raises: OSError.

        Its LUNs go first, so no command of it is accepted from then on; the kernel then ends
        each session and waits for what it had accepted (``target_shutdown_sessions``, 6.1).
        """
        place = self._acl(iqn, initiator)
        if not place.is_dir():
            return False
        for lun in _numbers(place):
            self.unmap_lun(iqn, initiator, lun)
        return _remove_folder(place)

    # -- devices ---------------------------------------------------------------------------

    def device_place(self, name: str) -> Path:
        """Return where a device of ours is, or would be."""
        return self._hba / f"{DEVICE_PREFIX}{name}"

    def device(self, place: Path) -> LioDevice | None:
        """Look at one device; None when it is not there. Raises: OSError."""
        info = _try_read(place / "info")
        if info is None:
            return None
        found = _NUMBER.search(info)
        image = _read(place / "udev_path")
        return LioDevice(
            number=os.makedev(int(found[1]), int(found[2])) if found else None,
            serial=_read(place / "wwn/vpd_unit_serial").partition(":")[2].strip(),
            image=Path(image) if image else None,
            unmaps=[_read(place / "attrib" / name) for name in ("emulate_tpu", "emulate_tpws")]
            == ["1", "1"],
        )

    def enable_device(self, place: Path, block_device: Path, image: Path) -> None:
        """Make a device over a block device, which it claims. Raises: OSError (EBUSY: in use).

        Half a device that was left is completed. Removed again on failure.
        """
        self._hba.mkdir(exist_ok=True)
        place.mkdir(exist_ok=True)
        try:
            _write(place / "control", f"udev_path={block_device}")
            _write(place / "udev_path", str(image)[:_MAX_SHOWN_PATH])
            _write(place / "enable", "1")
        except OSError:
            with contextlib.suppress(OSError):
                place.rmdir()
            raise

    def name_device(self, place: Path, *, serial: str, vendor: str, product: str) -> None:
        """Give a device its identity. Precondition: no LUN shows it. Raises: OSError."""
        # the serial comes last: it is what a later look goes by
        for name, value in (
            ("vendor_id", vendor), ("product_id", product), ("vpd_unit_serial", serial)
        ):  # fmt: skip
            if (place / "wwn" / name).exists():
                _write(place / "wwn" / name, value)

    def set_unmap(self, place: Path) -> None:
        """Have a device offer UNMAP and WRITE SAME with it. Raises: OSError (it cannot)."""
        for name in ("emulate_tpu", "emulate_tpws"):
            _write(place / "attrib" / name, "1")

    def remove_device(self, place: Path) -> bool:
        """Take a device away; False when a LUN of any target still shows it. Raises: OSError."""
        try:
            return _remove_folder(place)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise

    def _group(self, iqn: str) -> Path:
        return self._iscsi / iqn / "tpgt_1"

    def _lun(self, iqn: str, lun: int) -> Path:
        return self._group(iqn) / "lun" / f"lun_{lun}"

    def _acl(self, iqn: str, initiator: str) -> Path:
        return self._group(iqn) / "acls" / initiator


def _acl(place: Path) -> LioAcl:
    auth = {name: _read(place / "auth" / name) for name in _AUTH}
    auth = {name: "" if value.startswith(_NULL) else value for name, value in auth.items()}
    mapped: dict[int, int | None] = {}
    protected = set()
    for lun in _numbers(place):
        target = _linked(place / f"lun_{lun}")
        protects = _read(place / f"lun_{lun}" / "write_protect")
        mapped[lun] = int(target.name.removeprefix("lun_")) if target and protects else None
        if protects == "1":
            protected.add(lun)
    return LioAcl(
        auth=LioAuth(
            auth["userid"],
            Secret(auth["password"]),
            auth["userid_mutual"],
            Secret(auth["password_mutual"]),
        ),
        demands=_try_read(place / "attrib/authentication"),
        mapped=mapped,
        protected=frozenset(protected),
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")


def _try_read(path: Path) -> str | None:
    try:
        return _read(path)
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    # never O_CREAT: an attribute that the kernel does not have is an error
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode(errors="surrogateescape"))
    finally:
        os.close(descriptor)


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from sorted(one.name for one in entries if one.is_dir())


def _numbers(folder: Path) -> list[int]:
    return sorted(
        int(name.removeprefix("lun_"))
        for name in _names(folder)
        if name.removeprefix("lun_").isdecimal()
    )


def _links(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in entries if one.is_symlink()]
    except FileNotFoundError:
        return []


def _linked(folder: Path) -> Path | None:
    for link in _links(folder):
        return Path(os.path.normpath(folder / os.readlink(folder / link)))  # noqa: PTH115
    return None


def _remove_linked(folder: Path) -> bool:
    for link in _links(folder):
        (folder / link).unlink()
    return _remove_folder(folder)


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return False
    return True


def _escaped(portal: str) -> str:
    return portal.replace("[", "[[]")
