"""No test here leaves a process behind, as in the folder of the daemons."""

from __future__ import annotations

from tests.daemons.conftest import leftovers as leftovers
