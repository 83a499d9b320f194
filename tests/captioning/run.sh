#!/usr/bin/env bash
# The tests of the captioning program, under two versions of transformers at once: makes
# .test-captioning/pin and .test-captioning/newest, and runs pytest in each with the arguments given:
#   bash tests/captioning/run.sh [--setup] [-k word]
# With --setup the environments are made and nothing is tested.
# Exit status: 0 if the tests pass in both.
set -eu
cd -- "$(dirname -- "$0")/../.."

python=${MUSUBITLX_PYTHON:-python3}

# Make one environment, unless that has been done. Its files are compiled as they are used.
make_environment() {
    local folder=.test-captioning/$1 wanted=tests/captioning/$1.txt
    if ! cmp -s "$wanted" "$folder/.made-from"; then
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --no-compile -r "$wanted"
        cp "$wanted" "$folder/.made-from"
    fi
}

# Run the tests in one environment.
run_tests() {
    local name=$1
    shift
    ".test-captioning/$name/bin/python" -m pytest -p no:cacheprovider \
        --confcutdir=tests/captioning tests/captioning "$@"
}

# Do something for each environment, side by side, then show what each said; fail if one failed.
in_each() {
    local name status=0
    local -A running=()
    mkdir -p .test-captioning
    for name in $names; do
        "$1" "$name" "${@:2}" >".test-captioning/$name.log" 2>&1 &
        running[$name]=$!
    done
    for name in $names; do
        wait "${running[$name]}" || status=1
        if [ -s ".test-captioning/$name.log" ]; then
            printf '\n== captioning, %s ==\n' "$name"
            cat ".test-captioning/$name.log"
        fi
    done
    return "$status"
}

# transformers 5 wants Python 3.11.
names=pin
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    names="pin newest"
fi

in_each make_environment
if [ "${1:-}" != --setup ]; then
    in_each run_tests "$@"
fi
