#!/usr/bin/env bash
# The one test command: makes .test-venv, installs what the tests need, lints, and runs pytest with
# the arguments given:  bash tests/run.sh [-k word] [tests/test_x.py ...]
# Exit status: pytest's; where that is 0 and a lint found something, 1.
set -eu
cd -- "$(dirname -- "$0")/.."

# A line that is not overlooked.
shout() { printf '\n==== %s ====\n\n' "$*" >&2; }

# Install both lists of requirements, unless that has been done.
install_packages() {
    local stamp=.test-venv/.test-requirements
    .test-venv/bin/python -c '' 2>/dev/null || rm -rf .test-venv
    bash start_gui.sh --setup --venv "$PWD/.test-venv"
    if ! cmp -s tests/requirements.txt "$stamp"; then
        .test-venv/bin/python -m pip install --quiet -r requirements.txt -r tests/requirements.txt
        cp tests/requirements.txt "$stamp"
    fi
}

# Print the first Chromium that starts; nothing if there is none.
find_chromium() {
    local candidate
    for candidate in "${CHROMIUM:-}" "${MUSUBITLX_CHROMIUM:-}" \
        chromium chromium-browser google-chrome google-chrome-stable; do
        if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
            command -v -- "$candidate" && return
        fi
    done
}

# Debian's package, where we may install it.
install_chromium() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    shout "no Chromium found: installing Debian's"
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >&2 ||
        shout "that failed"
}

lint() {
    local failed=0
    .test-venv/bin/ruff check . || failed=1
    .test-venv/bin/ruff format --check . || failed=1
    if command -v shellcheck >/dev/null; then
        shellcheck ./*.sh tests/*.sh .ci/run || failed=1
    else
        shout "no shellcheck: the shell scripts were not checked"
    fi
    return "$failed"
}

# How many test files run side by side: more than there are cores would make browsers slow. They
# come by name: those with a browser early, so that the quick ones fill up the end.
workers() {
    local cores
    cores=$(nproc 2>/dev/null || echo 1)
    echo $((cores < 6 ? cores : 6))
}

install_packages

MUSUBITLX_CHROMIUM=$(find_chromium)
if [ -z "$MUSUBITLX_CHROMIUM" ]; then
    install_chromium
    MUSUBITLX_CHROMIUM=$(find_chromium)
fi
export MUSUBITLX_CHROMIUM
[ -n "$MUSUBITLX_CHROMIUM" ] ||
    shout "NO CHROMIUM: the browser tests are skipped. Install one, or name it in CHROMIUM."

lint_status=0
lint || lint_status=1
status=0
.test-venv/bin/python -m pytest -n "$(workers)" --dist loadfile --no-loadscope-reorder "$@" || status=$?
[ "$lint_status" = 0 ] || shout "ruff or shellcheck found something, see above"
[ "$status" = 0 ] || exit "$status"
exit "$lint_status"
