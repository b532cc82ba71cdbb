#!/usr/bin/env bash
# Every test: those of this machine beside those of the lab, one boot at a time until the former
# are through, then two: more at once would only make each other late.
# Arguments are for pytest on this machine. The lab's output follows.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LUNPORT_REQUIRE=all

.venv/bin/python -m lab.os_brick_environment
exec .venv/bin/python -m lab.suite --boots 6 tests/lab \
    --beside "$(printf '%q ' .venv/bin/pytest -q --durations=30 --durations-min=5 "$@")" \
    --beside '.venv/bin/pytest -q tests/lab_boots'
