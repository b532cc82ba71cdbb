"""How the lab's tests are divided among boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.suite import divided


@pytest.mark.parametrize("boots", [1, 2, 3, 9])
def test_every_file_runs_in_one_boot(tmp_path: Path, boots: int) -> None:
    """Whatever their number, no file is left out and none runs twice; each boot has some."""
    files = [tmp_path / f"test_{number}.py" for number in range(7)]
    for number, file in enumerate(files):
        file.write_text("x" * number * 100)
    parts = divided(files, boots)
    assert sorted(file for part in parts for file in part) == files
    assert len(parts) == min(boots, 7)
    assert all(parts)
    assert all(part == sorted(part) for part in parts)


def test_large_files_are_spread(tmp_path: Path) -> None:
    """The two largest files are not behind one another."""
    for name, size in (("test_a.py", 900), ("test_b.py", 1000), ("test_c.py", 10)):
        (tmp_path / name).write_text("x" * size)
    large = [
        {"test_a.py", "test_b.py"} & {file.name for file in part}
        for part in divided(sorted(tmp_path.glob("*.py")), 2)
    ]
    assert [len(part) for part in large] == [1, 1]
