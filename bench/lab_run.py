"""Run a module that measures in the lab's throw-away machine; read the samples it left."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import vm
from lab.errors import LabError

ROOT = Path(__file__).resolve().parents[1]


def add_machine_options(parser: argparse.ArgumentParser, *, time_limit_s: float) -> None:
    """Let the size of the machine be chosen: one processor measures beside other work."""
    parser.add_argument("--processors", type=int, default=2, metavar="N", help="[%(default)s]")
    parser.add_argument(
        "--time-limit", type=float, default=time_limit_s, metavar="S", help="of the lab"
    )


def measure(module: str, words: Sequence[str], out: Path, options: argparse.Namespace) -> int:
    """Boot, run the module, and return its exit status; ``out`` begins empty."""
    shutil.rmtree(out, ignore_errors=True)
    # as installed: else each program of ours that starts in the guest compiles what it imports
    compileall.compile_dir(ROOT / "src", quiet=2)
    what = vm.Run([sys.executable, "-m", module, *words], folder=ROOT, out=out)
    try:
        machine = vm.Machine(time_limit_s=options.time_limit, processors=options.processors)
        return vm.run(what, machine)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status


def read_samples(out: Path) -> list[dict[str, Any]]:
    """Return what was measured, in its order."""
    try:
        lines = (out / "samples.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def now() -> dict[str, Any]:
    """Say when it was, and how busy this machine."""
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()}
