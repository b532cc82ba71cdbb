"""Tests of ``lunport guest`` on a host, guests and a service that are played."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from lunport.agent.guest_parts import GuestParts
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.guest import guest
from lunport.cli.guest_parts import GuestCommandParts
from lunport.core.errors import LunportError, VolumeApiUnavailable
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from tests.fakes.fake_hypervisor import Manner
from tests.fakes.guest_play import GUEST, SECRET, VOLUME, GuestPlay, Killed


@dataclass(frozen=True, slots=True)
class PlayedCommandParts(GuestCommandParts):
    """Parts that are played."""

    play: GuestPlay

    def guest_parts(
        self, uri: str, token: Secret | None, service_token: Secret | None
    ) -> GuestParts:
        """Return the played ones."""
        self.play.uri = uri
        return self.play.parts()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuestPlay:
    """A host with one running guest, ``web``."""
    for variable in ("OS_ENDPOINT", "OS_TOKEN", "LUNPORT_LIBVIRT"):
        monkeypatch.delenv(variable, raising=False)
    played = GuestPlay(tmp_path)
    played.hypervisor.define(GUEST, "web")
    return played


@pytest.fixture
def run(play: GuestPlay, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return its exit status and what it printed."""

    def command(*arguments: str) -> tuple[int, str]:
        try:
            status = guest.main(
                args=list(arguments), obj=PlayedCommandParts(play), standalone_mode=False
            )
        except click.UsageError as error:
            return 2, error.format_message()
        except LunportError as error:
            return exit_code_of(error), str(error)
        return status if isinstance(status, int) else 0, capsys.readouterr().out

    return command


def test_a_volume_for_a_guest(run: Run, play: GuestPlay) -> None:
    """The first line of an attach is the disk's name; a detach says that it is done."""
    status, said = run("attach", "web", VOLUME)
    assert (status, said.splitlines()[0]) == (0, "vdb")
    assert VOLUME in said
    assert run("extend", "web", VOLUME) == (0, f"{2 << 30} bytes\n")
    assert run("detach", "web", VOLUME) == (0, "Detached.\n")
    assert run("detach", "web", VOLUME) == (0, "It was not attached.\n")
    assert play.left() == {}


def test_all_of_it_as_json(run: Run) -> None:
    """Every command says the same to programs."""
    status, said = run("attach", "web", VOLUME, "--initiator", "qemu", "-o", "json")
    document = json.loads(said)
    assert status == 0
    assert document["change"] == "changed"
    assert (document["target"], document["portal"]) == ("vdb", "10.0.1.2:3260")
    assert SECRET not in said
    (listed,) = json.loads(run("list", "-o", "json")[1])
    shown = json.loads(run("show", "web", "-o", "json")[1])
    assert listed == shown
    assert shown["volumes"][0]["live"] is True
    assert shown["volumes"][0]["problem"] is None
    assert json.loads(run("extend", "web", VOLUME, "-o", "json")[1]) == {"size_bytes": 1 << 30}
    assert json.loads(run("detach", "web", VOLUME, "-o", "json")[1]) == {"change": "changed"}
    assert json.loads(run("recover", "-o", "json")[1]) == {"actions": []}


def test_what_is_wrong_is_shown(run: Run, play: GuestPlay) -> None:
    """A dead portal, a lost disk and a guest that is gone are told, each with what helps."""
    run("attach", "web", VOLUME, "--initiator", "qemu")
    assert "problem" not in run("show", "web")[1]
    play.dead.add("10.0.1.2")
    assert "does not answer, and QEMU knows no other" in run("show", GUEST)[1]
    assert "does not answer" not in run("list")[1]
    play.hypervisor.unplug(GUEST, VOLUME, Deadline.after(1))
    assert "has lost the disk" in run("list")[1]
    del play.hypervisor.known[GUEST]
    assert "web  gone" in run("list")[1]
    assert "detach it: the guest is gone" in run("show", "web")[1]
    assert run("detach", "web", VOLUME)[0] == 0
    assert run("list") == (0, "There are no guests.\n")
    assert run("show", "web")[0] == 3


@pytest.mark.parametrize("manner, status", [(Manner.SLOW, 7), (Manner.REFUSING, 4)])
def test_a_guest_that_keeps_its_disk_has_a_status(
    run: Run, play: GuestPlay, manner: Manner, status: int
) -> None:
    """A refusal and a silence have exit statuses of their own, and say what helps."""
    run("attach", "web", VOLUME)
    play.hypervisor.known[GUEST].manner = manner
    found, said = run("detach", "web", VOLUME)
    assert found == status
    assert "Guest web" in said
    assert "detach again" in said


def test_recover_finishes(run: Run, play: GuestPlay) -> None:
    """What a killed command left is taken away; what could not be has exit status 1."""
    play.kill_at = "plugged"
    with pytest.raises(Killed):
        run("attach", "web", VOLUME)
    assert "was cut off" in run("list")[1]
    play.service.failures["delete"] = VolumeApiUnavailable("the service is down")
    assert run("recover")[0] == 1
    status, said = run("recover")
    assert status == 0
    assert "its attach was cut off" in said
    assert play.left() == {}


def test_the_command_line_is_checked(run: Run, play: GuestPlay) -> None:
    """What cannot be is refused before anything begins."""
    status, said = run("attach", "web", VOLUME, "--initiator", "qemu", "--multipath")
    assert (status, "--multipath is the kernel's" in said) == (2, True)
    assert run("attach", "web", VOLUME, "--target", "hda")[0] == 2
    assert run("attach", "web", "unknown-volume")[0] == 3
    assert play.left() == {}


def test_no_text_shows_a_secret(run: Run) -> None:
    """Neither output holds the secret of a volume that wants one."""
    for arguments in (
        ("attach", "web", VOLUME, "--initiator", "qemu"),
        ("list",),
        ("show", "web"),
        ("show", "web", "-o", "json"),
    ):
        assert SECRET not in run(*arguments)[1]
