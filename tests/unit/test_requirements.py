"""Which absences excuse a test."""

from __future__ import annotations

import pytest

from tests.requirements import lacking, may_skip, required

ALL = required("all")


def test_names_are_split_and_trimmed() -> None:
    """The variable is a list with commas; blanks and empty words do not count."""
    assert required(" tgtd, ,qemu-io") == {"tgtd", "qemu-io"}
    assert required("") == frozenset()


def test_only_what_is_absent_is_lacking() -> None:
    """A program on the path is met, an invented one is lacking, wherever the path leads."""
    assert lacking(["sh", "no-such-program", "kernel:no-such-fs"]) == (
        "no-such-program",
        "kernel:no-such-fs",
    )


@pytest.mark.parametrize(
    "absent,require,allowed",
    [
        (("tgtd",), "", True),
        (("tgtd",), "qemu-io", True),
        (("tgtd",), "tgtd", False),
        (("tgtd",), "all", False),
        (("root",), "all", False),
        (("kernel:xfs",), "all", True),
        (("kernel:xfs",), "all,kernel", False),
        (("kernel:xfs",), "kernel:xfs", False),
        (("kernel:xfs", "mkfs.xfs"), "all", False),
    ],
)
def test_what_is_required_may_not_be_absent(
    absent: tuple[str, ...], require: str, allowed: bool
) -> None:
    """Required and absent is a failure; only a part of the kernel may be absent under `all`."""
    assert may_skip(absent, required(require)) is allowed


def test_a_skip_without_a_need_is_no_excuse() -> None:
    """Where everything is required, a test that skips itself for its own reasons fails."""
    assert not may_skip((), ALL)
    assert may_skip((), required(""))
