"""Read the units of a static backend from the configuration.

    [backend.nas]
    driver = "static"
    wipe = "zero"

    [[backend.nas.luns]]
    size_gib = 100
    portals = ["10.0.1.2:3260", "10.0.2.2:3260"]
    iqn = "iqn.2014-2.org.example:vol1"
    lun = 1
    wwid = "naa.600140500000000000000000000000a1"
    chap_username = "lunport"
    chap_password_file = "/etc/lunport/nas.secret"

``iqns`` and ``luns``, parallel to ``portals``, in place of ``iqn`` and ``lun`` where they differ
from portal to portal, as in the specification of alternative portals. Secrets are in files, so
that the configuration may be read by everybody; a file that everybody may read is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lunport.core.chap import Chap, ChapCredentials, parse_chap_credentials
from lunport.core.errors import InvalidConfig, InvalidInput, InvalidIqn
from lunport.core.iqn import Iqn, fold_iqn, parse_iqn
from lunport.core.portal import parse_portal
from lunport.core.size import parse_size_gib
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.wwid import Wwid, parse_wwid
from lunport.drivers.static import StaticDriver, StaticSettings
from lunport.drivers.static_units import StaticUnit
from lunport.host.initiator_name import FILE, read_initiator_name

_OPTIONS = frozenset(("luns", "wipe", "discovered", "initiator"))

_KEYS = frozenset(
    (
        "size_gib",
        "portals",
        "iqn",
        "iqns",
        "lun",
        "luns",
        "wwid",
        "chap_username",
        "chap_password_file",
        "mutual_username",
        "mutual_password_file",
    )
)


def make_static_driver(
    backend: str,
    folder: Path,
    options: Mapping[str, object],
    *,
    stop: Callable[[], bool],
) -> StaticDriver:
    """Make a static backend's driver. Raises: InvalidConfig."""
    where = f"backend.{backend}"
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        known = f"known options: {', '.join(sorted(_OPTIONS))}"
        raise InvalidConfig(where, ", ".join(unknown), known)
    wipe, discovered = options.get("wipe", "zero"), options.get("discovered", False)
    if wipe not in ("zero", "none"):
        raise InvalidConfig(f"{where}.wipe", wipe, "expected zero or none")
    if not isinstance(discovered, bool):
        raise InvalidConfig(f"{where}.discovered", discovered, "expected true or false")
    units = parse_units(where, options.get("luns"))
    if wipe == "zero" and any(unit.chap and unit.chap.mutual for unit in units):
        reason = "QEMU's initiator wipes, and has no mutual CHAP: drop mutual_username or wipe none"
        raise InvalidConfig(f"{where}.wipe", wipe, reason)
    return StaticDriver(
        StaticSettings(
            folder=folder,
            units=units,
            initiator=_initiator(where, options.get("initiator")),
            wipe="none" if wipe == "none" else "zero",
            is_discovered=discovered,
        ),
        stop=stop,
    )


def _initiator(where: str, value: object) -> Iqn:
    """Return the name by which this host looks at units: its own, unless one is configured."""
    try:
        if value is not None:
            return parse_iqn(value, what=f"{where}.initiator")
        found = read_initiator_name()
    except InvalidIqn as error:
        raise InvalidConfig(f"{where}.initiator", error.value, error.reason) from error
    if found is None:
        raise InvalidConfig(f"{where}.initiator", None, f"{FILE} names none; configure one here")
    return found


def parse_units(where: str, entries: object) -> tuple[StaticUnit, ...]:
    """Read ``luns``: a list of tables. Raises: InvalidConfig, naming the entry and the key."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise InvalidConfig(f"{where}.luns", entries, "declare at least one [[luns]] table")
    units = tuple(
        _parse_unit(f"{where}.luns[{number}]", entry) for number, entry in enumerate(entries)
    )
    _check_apart(where, units)
    return units


def _parse_unit(where: str, entry: object) -> StaticUnit:
    if not isinstance(entry, Mapping):
        raise InvalidConfig(where, entry, "expected a table")
    unknown = sorted(map(str, entry.keys() - _KEYS))
    if unknown:
        raise InvalidConfig(where, ", ".join(unknown), f"known keys: {', '.join(sorted(_KEYS))}")
    try:
        return StaticUnit(
            paths=_paths(where, entry),
            size_gib=parse_size_gib(entry.get("size_gib"), what=f"{where}.size_gib"),
            wwid=_wwid(where, entry.get("wwid")),
            chap=_chap(where, entry),
        )
    except InvalidConfig:
        raise
    except InvalidInput as error:
        raise InvalidConfig(where, error.value, str(error)) from error


def _paths(where: str, entry: Mapping[str, object]) -> tuple[TargetPath, ...]:
    portals = entry.get("portals")
    if not isinstance(portals, Sequence) or isinstance(portals, str) or not portals:
        raise InvalidConfig(f"{where}.portals", portals, "name at least one portal")
    count = len(portals)
    iqns = _parallel(where, entry, "iqn", "iqns", count)
    luns = _parallel(where, entry, "lun", "luns", count)
    paths = tuple(
        TargetPath(
            parse_portal(portal, what=f"{where}.portals"),
            parse_iqn(iqn, what=f"{where}.iqn"),
            parse_lun(lun, what=f"{where}.lun"),
        )
        for portal, iqn, lun in zip(portals, iqns, luns, strict=True)
    )
    for path in paths:
        if not path.portal.is_literal:
            raise InvalidConfig(f"{where}.portals", str(path.portal), "an address, not a name")
    if len({(path.portal, fold_iqn(path.iqn)) for path in paths}) != count:
        raise InvalidConfig(f"{where}.portals", ", ".join(map(str, portals)), "one occurs twice")
    return paths


def _parallel(
    where: str, entry: Mapping[str, object], one: str, many: str, count: int
) -> Sequence[object]:
    """Return a value for each portal: one for all of them, or a list of as many."""
    if (one in entry) == (many in entry):
        raise InvalidConfig(where, f"{one}, {many}", f"expected either {one} or {many}")
    if one in entry:
        return [entry[one]] * count
    values = entry[many]
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise InvalidConfig(f"{where}.{many}", values, f"expected {count}, one for each portal")
    return values


def _wwid(where: str, value: object) -> Wwid | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidConfig(f"{where}.wwid", value, "expected a string such as naa.6001405...")
    return parse_wwid(value)


def _chap(where: str, entry: Mapping[str, object]) -> Chap | None:
    initiator = _credentials(where, entry, "chap")
    mutual = _credentials(where, entry, "mutual")
    if initiator is None:
        if mutual is not None:
            raise InvalidConfig(f"{where}.mutual_username", mutual.username, "needs chap_username")
        return None
    return Chap(initiator, mutual)


def _credentials(where: str, entry: Mapping[str, object], side: str) -> ChapCredentials | None:
    username, file = entry.get(f"{side}_username"), entry.get(f"{side}_password_file")
    if username is None and file is None:
        return None
    if username is None or not isinstance(file, str) or not Path(file).is_absolute():
        what = f"{where}.{side}_password_file"
        raise InvalidConfig(what, file, "a user name and an absolute path come together")
    return parse_chap_credentials(username, _read_secret(where, side, Path(file)), what=where)


def _read_secret(where: str, side: str, file: Path) -> str:
    what = f"{where}.{side}_password_file"
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise InvalidConfig(what, str(file), f"others may read it: chmod 600 {file}")
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InvalidConfig(what, str(file), reason or "it cannot be read") from error


def _check_apart(where: str, units: Sequence[StaticUnit]) -> None:
    """Refuse a unit that is declared twice: it would be given to two volumes."""
    paths: set[tuple[object, str, int]] = set()
    wwids: set[Wwid] = set()
    for unit in units:
        for path in unit.paths:
            place = (path.portal, fold_iqn(path.iqn), path.lun)
            if place in paths:
                raise InvalidConfig(f"{where}.luns", str(path), "it is declared twice")
            paths.add(place)
        if unit.wwid is not None:
            if unit.wwid in wwids:
                raise InvalidConfig(f"{where}.luns", unit.wwid, "two units have this wwid")
            wwids.add(unit.wwid)
