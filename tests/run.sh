#!/usr/bin/env bash
# The one test command: makes .test-venv, installs what the tests need, lints, and runs pytest with
# the arguments given:  bash tests/run.sh [-k word] [tests/test_x.py ...]
# The tests of the captioning program come last, in environments of their own (with torch). With
# NO_CAPTIONING=1, and where the arguments choose tests, those are left out.
# Exit status: pytest's; where that is 0 and something else failed, 1.
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

# Print the first Chromium that starts; nothing if there is none. The one without a window's parts
# is a quarter faster.
find_chromium() {
    local candidate
    for candidate in "${CHROMIUM:-}" "${MUSUBITLX_CHROMIUM:-}" \
        chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do
        if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
            command -v -- "$candidate" && return
        fi
    done
}

# Debian's package, where we may install it.
install_chromium() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    shout "no Chromium found: installing Debian's"
    local package
    apt-get update >&2 || true
    for package in chromium-headless-shell chromium; do
        apt-get install -y --no-install-recommends "$package" >&2 && return
    done
    shout "that failed"
}

lint() {
    local failed=0
    .test-venv/bin/ruff check . || failed=1
    .test-venv/bin/ruff format --check . || failed=1
    if command -v shellcheck >/dev/null; then
        shellcheck ./*.sh tests/*.sh tests/captioning/*.sh .ci/run || failed=1
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

# Whether arguments choose some of the tests.
chooses() {
    local argument
    for argument in "$@"; do
        case "$argument" in -k | tests/*) return 0 ;; esac
    done
    return 1
}

if chooses "$@"; then NO_CAPTIONING=1; fi

install_packages
captioning=0
if [ -z "${NO_CAPTIONING:-}" ]; then
    bash tests/captioning/run.sh --setup || captioning=1
fi

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
if [ -z "${NO_CAPTIONING:-}" ]; then
    bash tests/captioning/run.sh || captioning=1
fi
[ "$lint_status" = 0 ] || shout "ruff or shellcheck found something, see above"
[ "$captioning" = 0 ] || shout "the tests of the captioning program failed, see above"
[ "$status" = 0 ] || exit "$status"
exit $((lint_status || captioning))
