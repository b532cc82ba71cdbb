"""The port of portals that name none: chosen once, and kept from the moment it is bound."""

from __future__ import annotations

from pathlib import Path

from lunport.bootstrap.backends import choose_portals, keep_port, known_portals
from lunport.config import BackendConfig
from lunport.core.portal import Portal
from lunport.store.engine import Store
from lunport.store.schema import ensure_schema
from tests.daemons.conftest import free_portals


def test_a_port_is_kept_only_once_it_is_bound(tmp_path: Path) -> None:
    """A choice that was never bound is made anew; a bound one stays, also when it is taken."""
    store = Store(f"sqlite:///{tmp_path / 'lunport.sqlite'}")
    ensure_schema(store)
    config = BackendConfig(portals=("127.0.0.1", "127.0.0.2", "127.0.0.3:4000"))
    first, second, third = choose_portals("b", config, store)
    assert (first.host, second.host) == ("127.0.0.1", "127.0.0.2")
    assert first.port == second.port >= 3260
    assert third == Portal("127.0.0.3", 4000)
    (other,) = free_portals("127.0.0.1")
    bound = (Portal("127.0.0.1", other.port), Portal("127.0.0.2", other.port), third)
    keep_port("b", config, bound, store)
    assert choose_portals("b", config, store) == bound
    keep_port("b", config, (first, second, third), store)
    assert choose_portals("b", config, store) == bound
    store.close()


def test_backends_that_name_no_port_get_one_each(tmp_path: Path) -> None:
    """What another backend has, chosen a moment ago, named or kept, is not chosen once more."""
    store = Store(f"sqlite:///{tmp_path / 'lunport.sqlite'}")
    ensure_schema(store)
    floating = BackendConfig(portals=("127.0.0.1", "127.0.0.2"))
    first = choose_portals("a", floating, store)
    second = choose_portals("b", floating, store, first)
    assert {portal.port for portal in first}.isdisjoint(portal.port for portal in second)
    keep_port("a", floating, first, store)
    named = BackendConfig(portals=("127.0.0.3:4000",))
    static = BackendConfig(driver="static")
    configs = {"a": floating, "b": floating, "c": named, "d": static}
    assert known_portals(configs, store) == {*first, Portal("127.0.0.3", 4000)}
    store.close()


def test_named_ports_are_not_kept(tmp_path: Path) -> None:
    """A port in the configuration is the configuration's to change."""
    store = Store(f"sqlite:///{tmp_path / 'lunport.sqlite'}")
    ensure_schema(store)
    config = BackendConfig(portals=("127.0.0.1:4001",))
    keep_port("b", config, choose_portals("b", config, store), store)
    changed = BackendConfig(portals=("127.0.0.1:4002",))
    assert choose_portals("b", changed, store) == (Portal("127.0.0.1", 4002),)
    store.close()
