"""Count what this process asks of the system: files opened, folders listed, programs started.

The interpreter's audit events tell (PEP 578): each ``open()`` of sysfs, procfs, the journal
and the node records is one, whoever does it. A hook can't be taken away, so there is one, which
counts while somebody wants it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator

from lunport.host.host_root import state_directory

_counters: list[Counter[str]] = []
_is_hooked = False


@contextlib.contextmanager
def counted_work() -> Iterator[Counter[str]]:
    """Count what happens meanwhile, in all threads, by kind."""
    global _is_hooked  # noqa: PLW0603  (a hook is for good)
    if not _is_hooked:
        sys.addaudithook(_hear)
        _is_hooked = True
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _counters or event not in ("open", "os.listdir", "os.scandir", "subprocess.Popen"):
        return
    kind = _kind(event, arguments[0] if arguments else None)
    for counter in tuple(_counters):
        counter[kind] += 1


def _kind(event: str, what: object) -> str:
    if event == "subprocess.Popen":
        return "programs"
    verb = "opened" if event == "open" else "listed"
    path = os.fspath(what) if isinstance(what, str | bytes | os.PathLike) else ""
    text = os.fsdecode(path)
    if text.startswith(str(state_directory())):
        return f"journal {verb}"
    return f"{text.split('/')[1] if text.startswith('/') else 'other'} {verb}"
