#!/usr/bin/env bash
# The tests of the captioning program, under two versions of transformers: makes
# .test-captioning/pin and .test-captioning/newest, and runs pytest in each with the arguments given:
#   bash tests/captioning/run.sh [-k word]
# Exit status: 0 if the tests pass in both.
set -eu
cd -- "$(dirname -- "$0")/../.."

# Make one environment, unless that has been done.
make_environment() {
    local folder=.test-captioning/$1 wanted=tests/captioning/$1.txt
    if ! cmp -s "$wanted" "$folder/.made-from"; then
        rm -rf "$folder"
        "${MUSUBITLX_PYTHON:-python3}" -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet -r "$wanted"
        cp "$wanted" "$folder/.made-from"
    fi
}

# transformers 5 wants Python 3.11.
names=pin
if "${MUSUBITLX_PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    names="pin newest"
fi

status=0
for name in $names; do
    make_environment "$name"
    printf '\n== captioning, %s ==\n' "$name"
    .test-captioning/"$name"/bin/python -m pytest -p no:cacheprovider \
        --confcutdir=tests/captioning tests/captioning "$@" || status=1
done
exit "$status"
