"""The border at which libvirt's errors become ours: one table by its codes, from virterror.h.

Errors of QEMU's start carry no code of their own (all are VIR_ERR_INTERNAL_ERROR), so nothing
is decided by them; the sentence is kept.
"""

from __future__ import annotations

import libvirt

from lunport.core.errors import GuestNotFound, HypervisorError, HypervisorUnavailable, LunportError

MAX_WORDS = 300

# The connection is gone, or was never made: the same request may work on a new one.
LOST = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)
_RPC_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_POLKIT})
# What a dead connection gives beside those: "client socket is closed", "End of file while ...".
_LOST_IF_RPC = frozenset({libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR})


def code_of(error: libvirt.libvirtError) -> int:
    """Return the error's code; -1 where the binding itself failed."""
    code = error.get_error_code()
    return -1 if code is None else int(code)


def words_of(error: libvirt.libvirtError) -> str:
    """Return what libvirt says, on one line, bounded."""
    words = " ".join(str(error.get_error_message() or error).split())
    return words if len(words) <= MAX_WORDS else f"{words[: MAX_WORDS - 3]}..."


def is_lost(error: libvirt.libvirtError) -> bool:
    """Tell whether the connection is what failed."""
    code = code_of(error)
    if code in LOST:
        return True
    return code in _LOST_IF_RPC and error.get_error_domain() in _RPC_DOMAINS


def translate(error: libvirt.libvirtError, request: str, *, uri: str, guest: str) -> LunportError:
    """Return the error of ours that stands for one of libvirt's."""
    if is_lost(error):
        return HypervisorUnavailable(f"libvirt at {uri} is lost at {request}: {words_of(error)}.")
    if code_of(error) == libvirt.VIR_ERR_NO_DOMAIN:
        return GuestNotFound(guest)
    return HypervisorError(request, words_of(error))
