"""Faults while a service serves: what clients see, what heals, and what is never touched."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.errors import TargetDaemonDown
from lunport.host.clock import Deadline
from lunport.host.process import open_process
from lunport.host.tgt_socket import Mode, Op
from tests.daemons.conftest import RunningTgtd
from tests.daemons.service_process import ServiceProcess

pytestmark = pytest.mark.needs("tgtd")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service that serves, with a target daemon of its own."""
    with ServiceProcess(tmp_path) as running:
        yield running


# -- the target daemon ---------------------------------------------------------------------


def test_a_daemon_that_hangs_holds_up_only_the_first_who_ask(tgtd: RunningTgtd) -> None:
    """After one request without an answer the next ones wait a second, until it answers."""
    pid = tgtd.daemon.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TargetDaemonDown):
            tgtd.daemon.socket.call(Mode.PORTAL, Op.SHOW, Deadline.after(0.2))
        with pytest.raises(TargetDaemonDown, match=r"within 1\.0 s"):
            tgtd.daemon.socket.call(Mode.PORTAL, Op.SHOW, Deadline.after(60))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert tgtd.daemon.is_alive(Deadline.after(10))


def test_a_daemon_that_nobody_can_reach_is_replaced(service: ServiceProcess) -> None:
    """Without its management socket it is ended, and another one has the exports."""
    volume = service.create()
    assert service.connect(volume)[0] == 200
    before = service.tgtd()
    (service.target / "socket.1").unlink()
    assert service.connect(volume)[0] == 503
    service.until_connected(volume)
    assert service.tgtd() != before


def test_the_watch_over_a_daemon_survives_whatever_it_meets(service: ServiceProcess) -> None:
    """While its record cannot be written it stays down; then it comes back by itself."""
    volume = service.create()
    (service.target / "tgtd.partial").mkdir()
    os.kill(service.tgtd(), signal.SIGKILL)
    service.until_logged("target_daemon_not_restored")
    assert service.connect(volume)[0] == 503
    (service.target / "tgtd.partial").rmdir()
    service.until_connected(volume)


def test_who_has_no_descriptor_left_takes_nobody_for_dead(tgtd: RunningTgtd) -> None:
    """Without a free descriptor nothing is known of the daemon, so it is left alone."""
    pid = tgtd.daemon.pid()
    assert pid is not None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        with pytest.raises(OSError, match="Too many open files"):
            open_process(pid, "tgtd")
        with pytest.raises(OSError, match="Too many open files"):
            tgtd.daemon.socket.peer_pid(Deadline.after(1))
        with pytest.raises(TargetDaemonDown):
            tgtd.daemon.start(Deadline.after(1))
        with pytest.raises(TargetDaemonDown):
            tgtd.daemon.wait_for_exit(Deadline.after(1))
    assert tgtd.daemon.pid() == pid


# -- clients -------------------------------------------------------------------------------


def test_more_clients_than_descriptors_end_neither_service_nor_daemon(tmp_path: Path) -> None:
    """Idle connections make way for who asks; the log does not grow with the waiting."""
    service = ServiceProcess(tmp_path)
    try:
        service.start(prefix=["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
        volume = service.create()
        assert service.connect(volume)[0] == 200
        daemon = service.tgtd()
        with contextlib.ExitStack() as stack:
            service.silent_connections(stack, 100)
            assert service.ask("GET", "/p/volumes")[0] == 200
        assert service.connect(volume)[0] == 200
        assert service.tgtd() == daemon
        assert len(service.log_text) < 20_000
        assert "Traceback" not in service.log_text
    finally:
        service.end()


def test_a_request_that_stalls_gives_its_worker_back(tmp_path: Path) -> None:
    """Half a request holds a worker for some seconds, not for a minute."""
    with (
        ServiceProcess(tmp_path, service="threads = 2") as service,
        contextlib.ExitStack() as stack,
    ):
        service.silent_connections(stack, 2, saying=b"GET / HT")
        assert service.ask("GET", "/p/volumes")[0] == 200


# -- images that change behind our back ----------------------------------------------------


def test_an_image_that_was_cut_short_reaches_nobody(service: ServiceProcess) -> None:
    """It is neither exported nor copied, and its users are told; deleting it works."""
    volume = service.create()
    os.truncate(service.images / f"volume-{volume}", 4096)
    status, answer = service.connect(volume)
    assert (status, "4096 bytes" in answer["computeFault"]["message"]) == (500, True)
    copy = service.create(source_volid=volume)
    assert service.status_of(copy) == "error"
    messages = service.ask("GET", "/p/messages")[1]["messages"]
    assert "4096 bytes" in messages[0]["user_message"]
    for one in (volume, copy):
        assert service.ask("DELETE", f"/p/volumes/{one}")[0] == 202
        assert service.until(one, "gone", "error_deleting") == "gone"


def test_what_is_no_file_stops_no_worker(service: ServiceProcess) -> None:
    """A pipe in an image's place ends the copy with an error; it would be waited for for ever."""
    volume = service.create()
    image = service.images / f"volume-{volume}"
    image.unlink()
    os.mkfifo(image)
    assert service.status_of(service.create(source_volid=volume)) == "error"
    assert service.connect(volume)[0] == 500


def test_without_its_folder_no_image_counts_as_deleted(service: ServiceProcess) -> None:
    """A folder that is not mounted keeps its images, so their volumes stay until it is back."""
    volume = service.create()
    service.images.rename(service.images.with_suffix(".away"))
    assert service.ask("DELETE", f"/p/volumes/{volume}")[0] == 202
    assert service.until(volume, "gone", "error_deleting") == "error_deleting"
    service.images.with_suffix(".away").rename(service.images)
    assert service.ask("DELETE", f"/p/volumes/{volume}")[0] == 202
    assert service.until(volume, "gone", "error_deleting") == "gone"
    assert list(service.images.iterdir()) == []
