"""Tests of the border at which libvirt's errors become ours."""

from __future__ import annotations

import libvirt
import pytest

from lunport.core.errors import (
    GuestNotFound,
    HypervisorError,
    HypervisorUnavailable,
    LunportError,
)
from lunport.hypervisor.error_mapping import LOST, MAX_WORDS, code_of, is_lost, translate, words_of

CODES = {
    name: value
    for name, value in vars(libvirt).items()
    if name.startswith("VIR_ERR_") and isinstance(value, int)
}
LEVELS = {"VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR", "VIR_ERR_OK"}


def error(code: int, words: str = "it failed", domain: int = libvirt.VIR_FROM_QEMU) -> Exception:
    """Make an error as the binding does: code, domain, words, level, details."""
    made = libvirt.libvirtError("call failed")
    made.err = (code, domain, words, libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)
    assert isinstance(made, Exception)
    return made


def ours(one: Exception) -> LunportError:
    """Translate."""
    return translate(one, "looking", uri="qemu:///system", guest="web")


@pytest.mark.parametrize("name", sorted(set(CODES) - LEVELS))
def test_every_code_has_its_error(name: str) -> None:
    """Each code of libvirt gives the error that somebody acts on, or the plain one."""
    found = ours(error(CODES[name]))
    if CODES[name] in LOST:
        assert isinstance(found, HypervisorUnavailable)
    elif name == "VIR_ERR_NO_DOMAIN":
        assert isinstance(found, GuestNotFound)
        assert "web" in str(found)
    else:
        assert type(found) is HypervisorError
        assert str(found) == "The hypervisor failed at looking: it failed."


def test_a_dead_wire_is_no_refusal() -> None:
    """What a connection says as it dies has a general code, and is known by where it comes from."""
    for domain in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
        for code in (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR):
            assert is_lost(error(code, "client socket is closed", domain))
    assert not is_lost(error(libvirt.VIR_ERR_INTERNAL_ERROR, "QEMU said no"))
    assert not is_lost(error(libvirt.VIR_ERR_OPERATION_FAILED, "no", libvirt.VIR_FROM_RPC))


def test_words_are_one_bounded_line() -> None:
    """However much libvirt says, it is one line of bounded length."""
    assert words_of(error(1, "first\n  second")) == "first second"
    assert len(words_of(error(1, "x" * 5000))) == MAX_WORDS


def test_an_error_of_the_binding_itself() -> None:
    """An error without a code, as the binding raises by itself, is an error of ours as well."""
    bare = libvirt.libvirtError("the binding failed")
    bare.err = None
    assert code_of(bare) == -1
    assert type(ours(bare)) is HypervisorError
