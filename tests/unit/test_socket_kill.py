"""Which connection is a session's: exactly one, or none."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lunport.core.portal import Portal
from lunport.host.socket_kill import TcpConnection, established, find_connection
from lunport.host.systree import SysTree

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
REMOTE = Portal("10.0.1.2")
FOUND = TcpConnection(Portal("10.0.1.1", 33688), REMOTE)


def row(local: str, remote: str, state: str = "01") -> str:
    """Write a row as Linux 6.1 does on x86."""
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0\n"


SESSION = row("0101000A:8398", "0201000A:0CBC")


def host(tmp_path: Path, *rows: str, local_port: str = "33688", table: str = "tcp") -> SysTree:
    """Play a host with session 1 to 10.0.1.2, or to fd00:1::2."""
    folder = tmp_path / "sys/class/iscsi_connection/connection1:0"
    folder.mkdir(parents=True)
    (folder / "address").write_text("10.0.1.2\n" if table == "tcp" else "fd00:1::2\n")
    (folder / "port").write_text("3260\n")
    (folder / "local_port").write_text(local_port + "\n")
    (tmp_path / table).write_text(HEAD + "".join(rows))
    return SysTree(tmp_path / "sys")


def test_the_connection_of_a_session_is_found(tmp_path: Path) -> None:
    """Among others to the same portal it is the one from the session's local port."""
    other = row("0101000A:8399", "0201000A:0CBC")
    tree = host(tmp_path, other, SESSION)
    assert find_connection(tree, 1, proc_net=tmp_path) == FOUND


def test_a_connection_over_ipv6_is_found(tmp_path: Path) -> None:
    """Addresses of sixteen bytes are four words, each in native order."""
    near, far = (f"010000FD0000000000000000{end}000000" for end in ("01", "02"))
    tree = host(tmp_path, row(f"{near}:8398", f"{far}:0CBC"), table="tcp6")
    found = find_connection(tree, 1, proc_net=tmp_path)
    assert found == TcpConnection(Portal("fd00:1::1", 33688), Portal("fd00:1::2"))


def test_what_is_not_certain_is_none(tmp_path: Path) -> None:
    """Two candidates, a connection that is closing, or numbers that are missing give nothing."""
    elsewhere = row("0101000B:8398", "0201000A:0CBC")
    for number, (rows, local_port) in enumerate(
        [
            ((SESSION, elsewhere), "33688"),
            ((row("0101000A:8398", "0201000A:0CBC", "08"),), "33688"),
            ((SESSION,), "(null)"),
            ((SESSION,), ""),
            ((SESSION,), "33689"),
        ]
    ):
        folder = tmp_path / str(number)
        assert (
            find_connection(host(folder, *rows, local_port=local_port), 1, proc_net=folder) is None
        )
    assert find_connection(SysTree(tmp_path / "0/sys"), 2, proc_net=tmp_path / "0") is None
    assert find_connection(host(tmp_path / "n", SESSION), 1, proc_net=tmp_path) is None


@given(st.lists(st.text(max_size=60)), st.integers(0, 65535))
def test_junk_is_no_connection(lines: list[str], local_port: int) -> None:
    """Whatever a table holds, reading it gives connections to the portal or nothing."""
    assert all(found.remote == REMOTE for found in established(lines, REMOTE, local_port))
