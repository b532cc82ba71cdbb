"""The configuration: TOML files, read once, checked wholly before anything starts.

    [service]
    listen = "127.0.0.1:8776"
    auth = "none"

    [backend.fast]
    driver = "file"
    helper = "tgt"
    portals = ["10.0.1.2", "10.0.2.2"]
    portal_order = "rotate"

``/etc/lunport/lunport.toml`` is read first, then ``conf.d/*.toml`` beside it in the order of
their names; a later value wins, table by table. A key that is not known is an error.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from lunport.core.errors import InvalidConfig

DEFAULT_FILE = Path("/etc/lunport/lunport.toml")
DEFAULT_DATA_DIR = Path("/var/lib/lunport")
DEFAULT_LISTEN = "127.0.0.1:8776"
DEFAULT_PORTALS = ("127.0.0.1", "127.0.0.2")
DEFAULT_BACKEND = "local"
_HOST = re.compile(r"[^\s@#]{1,200}")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[service]``: the process as a whole."""

    listen: str = DEFAULT_LISTEN
    auth: Literal["none", "token"] = "none"
    tokens: str | None = None
    host: str | None = None
    zone: str = "nova"
    default_backend: str | None = None
    threads: int = 12
    workers: int = 2
    on_stop: Literal["keep", "stop"] = "keep"
    tls_listen: str | None = None
    tls: str | None = None


class BackendConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[backend.NAME]``: a driver, a target helper, and how volumes are offered.

    ``portals`` without a port take 3260 or the next port free on all of them, and keep it.
    ``driver_options`` and ``helper_options`` are for drivers and helpers from elsewhere.
    """

    driver: str = "file"
    helper: str = "tgt"
    portals: tuple[str, ...] = DEFAULT_PORTALS
    export: Literal["target_per_volume", "target_per_host", "shared_target"] = "target_per_volume"
    portal_order: Literal["fixed", "rotate", "least_loaded"] = "fixed"
    max_luns: int | None = None
    max_targets: int | None = None
    multipath: bool = True
    alternatives: bool = True
    resilient: bool = False
    chap: bool = True
    directory: str | None = None
    target_prefix: str | None = None
    over_subscription_ratio: float = 20.0
    reserve_mib: int | None = None
    tgtd: Literal["own", "system"] = "own"
    io_threads: int = 2
    direct_io: bool = True
    iser: tuple[str, ...] = ()
    volume_group: str | None = None
    lvm_type: Literal["auto", "thin", "thick"] = "auto"
    pool: str | None = None
    physical_volumes: tuple[str, ...] = ()
    volume_clear: Literal["zero", "discard", "none"] = "zero"
    clear_mib_per_s: int = 256
    copy_mib_per_s: int = 0
    host_filter: Literal["require", "warn"] = "require"
    luns: tuple[dict[str, Any], ...] = ()
    wipe: Literal["zero", "none"] = "zero"
    discovered: bool = False
    initiator: str | None = None
    driver_options: dict[str, Any] = msgspec.field(default_factory=dict)
    helper_options: dict[str, Any] = msgspec.field(default_factory=dict)


# The keys that only one driver of ours has.
DRIVER_KEYS: Mapping[str, tuple[str, ...]] = {
    "file": ("directory",),
    "lvm": (
        "volume_group",
        "lvm_type",
        "pool",
        "physical_volumes",
        "volume_clear",
        "clear_mib_per_s",
        "copy_mib_per_s",
        "host_filter",
    ),
    "static": ("luns", "wipe", "discovered", "initiator"),
}
# A static backend's units are offered by somebody else: it has neither of these.
_OF_OUR_TARGETS = (
    "helper",
    "helper_options",
    "portals",
    "export",
    "portal_order",
    "max_luns",
    "max_targets",
    "chap",
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured."""

    service: ServiceConfig = msgspec.field(default_factory=ServiceConfig)
    backend: dict[str, BackendConfig] = msgspec.field(
        default_factory=lambda: {DEFAULT_BACKEND: BackendConfig()}
    )

    @property
    def default_backend(self) -> str:
        """The backend of volumes that name none: the one configured so, or the first."""
        return self.service.default_backend or next(iter(self.backend))


def load_config(file: Path | None) -> Config:
    """Read the configuration; without a file, the default one if it is there.

    Raises: InvalidConfig.
    """
    if file is None:
        if not DEFAULT_FILE.exists():
            return Config()
        file = DEFAULT_FILE
    tree = _read(file)
    for extra in sorted((file.parent / "conf.d").glob("*.toml")):
        tree = _merge(tree, _read(extra))
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise InvalidConfig("configuration", str(file), _explain(tree, str(error))) from error
    _check(config)
    return config


def _explain(tree: dict[str, Any], sentence: str) -> str:
    """Say in a file's own words what msgspec says: ``SENTENCE - at `$.PATH` ``."""
    words, _, where = sentence.partition(" - at `$")
    where = _name_backend(tree, where.strip(".`"))
    unknown = _UNKNOWN_KEY.fullmatch(words)
    if unknown is not None:
        key = f"{where}.{unknown[1]}".lstrip(".")
        return f"there is no key {key}; known here: {', '.join(_keys(where))}"
    table, _, key = where.rpartition(".")
    choices = get_args(_keys(table).get(key))
    if words.startswith("Invalid enum value ") and choices:
        given = words.removeprefix("Invalid enum value ")
        return f"{where} is {given}; expected {' or '.join(map(repr, choices))}"
    words = words.replace(" | null`", "`")  # TOML has none
    for kind, name in _KINDS.items():
        words = words.replace(f"`{kind}`", name)
    return f"{where or 'the file'}: {words[:1].lower()}{words[1:]}"


def _name_backend(tree: dict[str, Any], where: str) -> str:
    backends = tree.get("backend")
    if isinstance(backends, dict):
        for name, backend in backends.items():
            try:
                msgspec.convert(backend, BackendConfig)
            except msgspec.ValidationError:
                return where.replace("backend[...]", f"backend.{name}")
    return where


def _keys(table: str) -> dict[str, Any]:
    """Return the keys that a table may have, with their types."""
    kinds: dict[str, type[msgspec.Struct]] = {"": Config, "service": ServiceConfig}
    return {one.name: one.type for one in msgspec.structs.fields(kinds.get(table, BackendConfig))}


def _check(config: Config) -> None:
    if not config.backend:
        raise InvalidConfig("backend", {}, "configure at least one [backend.NAME]")
    for name, backend in config.backend.items():
        if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
            raise InvalidConfig("backend name", name, "use letters, digits, - and _")
        _check_backend(name, backend)
        _check_driver_keys(name, backend)
    if config.default_backend not in config.backend:
        raise InvalidConfig(
            "service.default_backend",
            config.default_backend,
            f"expected one of {', '.join(config.backend)}",
        )
    if config.service.host is not None and not _HOST.fullmatch(config.service.host):
        raise InvalidConfig("service.host", config.service.host, "a name without spaces, @ and #")
    if not 0 < len(config.service.zone) < 256:
        raise InvalidConfig("service.zone", config.service.zone, "1 to 255 characters")
    if config.service.tls_listen is not None and config.service.tls is None:
        raise InvalidConfig("service.tls", None, "tls_listen needs the folder of certificates")
    for key in ("threads", "workers"):
        if not 1 <= getattr(config.service, key) <= 256:
            raise InvalidConfig(f"service.{key}", getattr(config.service, key), "1 to 256")


def _check_backend(name: str, backend: BackendConfig) -> None:
    if not backend.portals:
        raise InvalidConfig(f"backend.{name}.portals", [], "name at least one portal")
    for key in ("max_luns", "max_targets"):
        limit = getattr(backend, key)
        if limit is not None and limit < 1:
            raise InvalidConfig(f"backend.{name}.{key}", limit, "at least 1")
    if not 1 <= backend.io_threads <= 16:
        raise InvalidConfig(f"backend.{name}.io_threads", backend.io_threads, "1 to 16")
    if not 1 <= backend.over_subscription_ratio < math.inf:  # nan is neither
        raise InvalidConfig(
            f"backend.{name}.over_subscription_ratio",
            backend.over_subscription_ratio,
            "at least 1.0",
        )
    if backend.reserve_mib is not None and backend.reserve_mib < 0:
        raise InvalidConfig(f"backend.{name}.reserve_mib", backend.reserve_mib, "at least 0")


def _check_driver_keys(name: str, backend: BackendConfig) -> None:
    """Refuse a driver's keys on a backend of another one; there they would mean nothing."""
    defaults = BackendConfig()
    for driver, keys in DRIVER_KEYS.items():
        for key in keys if driver != backend.driver else ():
            value = getattr(backend, key)
            if value != getattr(defaults, key):
                raise InvalidConfig(
                    f"backend.{name}.{key}", value, f'only a backend of driver = "{driver}" has it'
                )
    if backend.driver == "lvm" and backend.volume_group is None:
        raise InvalidConfig(f"backend.{name}.volume_group", None, 'driver = "lvm" needs it')
    if backend.driver == "static":
        for key in _OF_OUR_TARGETS:
            if getattr(backend, key) != getattr(defaults, key):
                what, value = f"backend.{name}.{key}", getattr(backend, key)
                raise InvalidConfig(what, value, "a static backend has no targets of ours")
    for key in ("clear_mib_per_s", "copy_mib_per_s"):
        if getattr(backend, key) < 0:
            raise InvalidConfig(f"backend.{name}.{key}", getattr(backend, key), "at least 0")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig("configuration file", str(file), error.strerror or "") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig("configuration file", str(file), f"not TOML: {error}") from error


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
