"""One LUN number for hundreds of volumes, beside others that come and go."""

from __future__ import annotations

import pytest

from lab.san import San
from tests.lab.conftest import LabHost
from tests.lab.test_right_device import reuse_a_lun
from tests.lab_stress.conftest import part_of

ROUNDS = 300


@pytest.mark.timeout(3600)
def test_one_lun_number_for_hundreds_of_volumes(lab_host: LabHost, san: San) -> None:
    """None of them is ever handed out as another."""
    reuse_a_lun(lab_host, san, part_of(ROUNDS))
