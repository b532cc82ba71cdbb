"""The lab's machine: what its command did is what is reported, and nothing else looks like it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lab.errors import GuestDied, TimeIsUp
from lab.vm import Machine, Run, run

pytestmark = pytest.mark.needs("qemu-system-x86_64", "busybox")


def in_guest(script: str, *, limit_s: float = 120, out: Path | None = None) -> tuple[int, str]:
    """Run a shell script in the machine; give its exit status and output."""
    output = io.BytesIO()
    machine = Machine(time_limit_s=limit_s, memory_mib=1024)
    status = run(Run(["sh", "-c", script], out=out), machine, output)
    return status, output.getvalue().decode()


def test_a_command_runs_as_root_on_this_machines_files(tmp_path: Path) -> None:
    """Output, exit status and files come out; what it writes elsewhere does not."""
    beside = tmp_path / "beside"
    beside.write_text("as it was")
    script = f"id -u; cat {beside}; echo changed >{beside}; echo here >$LAB_OUT/one; exit 7"
    status, output = in_guest(script, out=tmp_path / "out")
    assert (status, output) == (7, "0\nas it was")
    assert (tmp_path / "out/one").read_text() == "here\n"
    assert beside.read_text() == "as it was"


def test_a_guest_that_dies_is_no_success() -> None:
    """A panic in the middle of a command is told with the console's last lines."""
    with pytest.raises(GuestDied, match=r"(?s)console: .*sysrq triggered crash"):
        in_guest("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; exit 0")


def test_a_guest_that_takes_too_long_is_ended() -> None:
    """At the time limit the machine is ended, and that is what is reported."""
    with pytest.raises(TimeIsUp, match="time limit of 1 s"):
        in_guest("exit 0", limit_s=1)
