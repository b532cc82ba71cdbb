"""Which devices a host's LVM would look at: its filter rules, judged.

What guests write into their volumes may be physical volumes of LVM's own, even of a volume
group of ours by name. The host's LVM must not see them: ``devices/scan_lvs`` is off and
``devices/global_filter`` rejects all that is not named (lvm.conf(5)). A rule is ``a|REGEX|`` or
``r|REGEX|`` with any delimiter; the first that matches one of a device's names decides for
that name, a device is accepted when any of its names is, and one that no rule matches is
accepted too. ``devices/filter`` is not looked at: the command line may override it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SETTINGS = ("devices/global_filter", "devices/scan_lvs", "devices/use_devicesfile")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PLAIN = re.compile(r"[A-Za-z0-9/_:-]")


@dataclass(frozen=True, slots=True)
class HostLvm:
    """What counts of a host's effective LVM configuration.

    ``listed`` are the devices of the devices file; None where no such file is in use.
    """

    global_filter: tuple[str, ...]
    scans_lvs: bool
    listed: frozenset[str] | None = None


def parse_settings(text: str) -> Mapping[str, str]:
    """Read lines ``key=value`` as lvmconfig(8) prints them."""
    pairs = (line.strip().partition("=") for line in text.splitlines())
    return {key: value for key, sign, value in pairs if sign}


def parse_rules(value: str) -> tuple[str, ...]:
    """Read the value of a filter: one string or a list of them."""
    return tuple(re.sub(r"\\(.)", r"\1", found) for found in _TEXT.findall(value))


def is_accepted(rules: Sequence[str], names: Iterable[str]) -> bool:
    """Tell whether LVM would look at a device of these names."""
    verdicts = [_verdict(rules, name) for name in names]
    return True in verdicts or False not in verdicts


def exact_rule(device: str) -> str:
    """Write the rule that accepts one device, by one name."""
    literal = "".join(sign if _PLAIN.match(sign) else f"[{sign}]" for sign in device)
    return f"a|^{literal}$|"


def find_gaps(
    host: HostLvm, own: Mapping[str, Sequence[str]], foreign: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Say what is wrong with a host's rules, a line each; nothing is wrong with none.

    ``own`` are the disks that the host must see, ``foreign`` those it must not: each with all
    the names it has.
    """
    gaps = []
    if host.scans_lvs:
        gaps.append("devices/scan_lvs is 1: it looks for volume groups inside of volumes")
    if host.listed is not None:
        gaps += [
            f"the devices file lists {device}, which is no disk of this host's"
            for device, names in foreign.items()
            if host.listed.intersection(names)
        ]
        return tuple(gaps)
    gaps += [
        f"devices/global_filter accepts {device}"
        for device, names in foreign.items()
        if is_accepted(host.global_filter, names)
    ]
    gaps += [
        f"devices/global_filter rejects {device}, on which the volumes are"
        for device, names in own.items()
        if not is_accepted(host.global_filter, names)
    ]
    return tuple(gaps)


def advise(devices: Iterable[str]) -> str:
    """Write the lines for lvm.conf that let a host see these disks and nothing else."""
    rules = ", ".join(f'"{exact_rule(device)}"' for device in devices)
    return f'devices {{\n    global_filter = [ {rules}, "r|.*|" ]\n    scan_lvs = 0\n}}'


def _verdict(rules: Sequence[str], name: str) -> bool | None:
    for rule in rules:
        if len(rule) < 3 or rule[0] not in "ar":
            continue
        expression = rule[2:].rpartition(_closing(rule[1]))[0]
        try:
            found = re.search(expression, name)
        except re.error:
            found = None  # LVM's own kind of expression: taken for one that does not match
        if found:
            return rule[0] == "a"
    return None


def _closing(delimiter: str) -> str:
    return {"(": ")", "[": "]", "{": "}"}.get(delimiter, delimiter)
