#!/usr/bin/env bash
# Every test: those of this machine, which mostly wait, beside those of the lab, which compute.
# Arguments are for pytest on this machine. The lab's output follows at the end.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LUNPORT_REQUIRE=all

.venv/bin/python -m lab.os_brick_environment
log=$(mktemp)
.venv/bin/python -m lab.suite --boots 6 tests/lab >"$log" 2>&1 &
lab=$!
trap 'kill "$lab" 2>/dev/null || true; rm -f "$log"' EXIT

status=0
.venv/bin/pytest -q "$@" || status=$?
.venv/bin/pytest -q tests/lab_boots || status=$?
echo 'The tests in the lab:'
wait "$lab" || status=$?
cat "$log"
exit "$status"
