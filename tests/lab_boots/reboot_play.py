"""Two acts in two boots of a throw-away machine: volumes are connected, the power goes; it returns.

python reboot_play.py before          leaves the state of the disk in $LAB_OUT
python reboot_play.py after FOLDER    begins with the state in FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import services
from lab.lio import Disk
from lab.network import san_network
from lab.san import San
from lunport.core.connection_info import ConnectionInfo
from lunport.core.iqn import Iqn
from lunport.core.path_status import VolumeState
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.lab.connecting import CHAP, MUTUAL_CHAP, disks, info_of, mark, node_records, sessions

KEPT = (Path("/var/lib/lunport"), Path("/etc/iscsi/nodes"), Path("/etc/multipath"))
PORTALS = 4
_LIMIT_S = 240.0


@dataclass(frozen=True, slots=True)
class Volumes:
    """One with a map, one with a single path, one that was disconnected; and the disk of each."""

    joined: ConnectionInfo
    alone: ConnectionInfo
    gone: ConnectionInfo
    disks: tuple[Disk, Disk, Disk]


@contextlib.contextmanager
def volumes() -> Iterator[Volumes]:
    """Have the same SAN in each boot."""
    services.load_modules()
    with contextlib.ExitStack() as stack:
        stack.enter_context(services.udevd())
        initiator = Iqn(stack.enter_context(services.iscsid()))
        network = stack.enter_context(san_network(PORTALS))
        san = stack.enter_context(San.on(network))
        stack.enter_context(services.multipathd(find_multipaths="strict"))
        joined = san.target("joined", chap=CHAP, allowed=[initiator])
        alone = san.target("alone", chap=MUTUAL_CHAP, allowed=[initiator], portals=san.portals[1:2])
        gone = san.target("gone", allowed=[initiator])
        made = [
            san.add_lun(target, 1, wwid=f"naa.6001405{number:025x}")
            for number, target in enumerate((joined, alone, gone), 1)
        ]
        yield Volumes(
            info_of(joined, 1, made[0], chap=CHAP),
            info_of(alone, 1, made[1], chap=MUTUAL_CHAP),
            info_of(gone, 1, made[2]),
            (made[0], made[1], made[2]),
        )


def before() -> None:
    """Connect, and lose the power with everything connected."""
    with volumes() as made:
        # As an agent does it: it keeps what it needs after a reboot.
        initiator = Initiator(InitiatorHost(keeps_watch=True, finish=lambda key: None))
        initiator.connect(made.joined, multipath=True)
        initiator.connect(made.alone)
        initiator.connect(made.gone, multipath=True)
        initiator.disconnect(made.gone)
        out = Path(os.environ["LAB_OUT"])
        for folder in KEPT:
            shutil.copytree(folder, out / folder.relative_to("/"), dirs_exist_ok=True)
        os.sync()
        sys.stdout.flush()
        os._exit(0)  # nothing is undone


def after(state: Path) -> None:
    """Begin anew with what the disk had, and let the agent do the rest."""
    with volumes() as made:
        for folder in KEPT:
            shutil.copytree(state / folder.relative_to("/"), folder, dirs_exist_ok=True)
        contents = [mark(disk, f"volume {number}") for number, disk in enumerate(made.disks)]
        with running_agent():
            # a look costs what it costs, and the agent needs the processors
            services.wait_until(is_back, "the volumes of before", _LIMIT_S, look_s=1.0)
            assert len(sessions()) == PORTALS + 1, sessions()
            initiator = Initiator()
            for info, content in ((made.joined, contents[0]), (made.alone, contents[1])):
                again = initiator.connect(info, multipath=info is made.joined)
                with Path(again.path).open("rb", buffering=0) as disk:
                    assert disk.read(len(content)) == content
            paths = {one.wwid: one for one in initiator.paths()}
            assert set(paths) == {made.joined.wwid, made.alone.wwid}, paths
            for info in (made.joined, made.alone):
                initiator.disconnect(info)
        assert (sessions(), disks(), node_records()) == ([], [], [])
        files = [path for path in Path("/var/lib/lunport").rglob("*") if path.is_file()]
        assert not files, files
        lines = Path("/etc/multipath/wwids").read_text().splitlines()
        assert not [line for line in lines if line.startswith("/")], lines


def is_back() -> bool:
    """Tell whether both volumes are there with all their paths."""
    seen = Initiator().paths()
    return len(seen) == 2 and all(one.state is VolumeState.OK for one in seen)


@contextlib.contextmanager
def running_agent() -> Iterator[None]:
    """Run the agent as its own process."""
    log = Path("/run/lab-agent.log")
    program = [str(Path(sys.executable).with_name("lunport")), "agent"]
    with log.open("wb") as output:
        agent = subprocess.Popen(program, stdout=output, stderr=output)
        try:
            yield
        except BaseException:
            sys.stdout.write(log.read_text(errors="replace")[-4000:])
            raise
        finally:
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(30) == 0, log.read_text(errors="replace")[-4000:]


if __name__ == "__main__":
    before() if sys.argv[1] == "before" else after(Path(sys.argv[2]))
