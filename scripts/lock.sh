#!/usr/bin/env bash
# Resolve pyproject.toml and requirements/*.in into pinned, hashed lists; needs the network.
#
# Takes the public index alone, whatever pip's configuration on this machine adds, so that the
# lists install anywhere. Without --upgrade pins are kept as far as they still fit.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tool=.cache/lock-tool
if [[ ! -x $tool/bin/uv || requirements/lock-tool.lock -nt $tool/bin/uv ]]; then
    rm -rf "$tool"
    python3 -m venv "$tool"
    "$tool/bin/python" -m pip --disable-pip-version-check --isolated install --quiet \
        --only-binary :all: --require-hashes -r requirements/lock-tool.lock
    touch "$tool/bin/uv"
fi

export UV_CUSTOM_COMPILE_COMMAND='make lock' UV_NO_CONFIG=1
unset "${!UV_INDEX@}" "${!UV_EXTRA_INDEX@}" "${!UV_DEFAULT_INDEX@}" "${!UV_FIND_LINKS@}"

compile() {
    "$tool/bin/uv" pip compile --quiet --generate-hashes --strip-extras --no-annotate \
        --no-emit-index-url --no-emit-find-links --python-version 3.11 --python-platform linux "$@"
}

compile "$@" pyproject.toml --extra storage --extra agent --output-file requirements/runtime.lock
# Inside the folder, because "-r runtime.lock" in dev.in is relative to it.
tool=../$tool
cd requirements
compile "$@" dev.in --output-file dev.lock
compile "$@" guests.in --output-file guests.lock
compile "$@" lock-tool.in --output-file lock-tool.lock
compile "$@" bench-attach.in --output-file bench-attach.lock
