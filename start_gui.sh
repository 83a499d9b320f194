#!/usr/bin/env bash
# Sets MusubiTLX up where that is still to be done, and starts it. ./start_gui.sh --help tells more.
set -u

# Print the folder of this script, also when it was called through a link.
script_folder() {
    local path=${BASH_SOURCE[0]} target
    while [ -L "$path" ]; do
        target=$(readlink -- "$path")
        case $target in
            /*) path=$target ;;
            *) path=$(dirname -- "$path")/$target ;;
        esac
    done
    CDPATH='' cd -P -- "$(dirname -- "$path")" && pwd
}

# Print the first Python that is new enough, or say what to install.
find_python() {
    local candidate
    for candidate in ${MUSUBITLX_PYTHON:+"$MUSUBITLX_PYTHON"} \
        python3 python python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s\n' "$candidate" && return
        fi
        if [ "$candidate" = "${MUSUBITLX_PYTHON:-}" ]; then
            printf '%s\n' "MUSUBITLX_PYTHON is $candidate, which is not Python 3.10 or newer." \
                "Name another one, or unset it, then start again." >&2
            return 1
        fi
    done
    printf '%s\n' "MusubiTLX needs Python 3.10 or newer, and none was found." \
        "Install one, or name it in MUSUBITLX_PYTHON, then start again." >&2
    return 1
}

# step: find a Python
python=$(find_python) || exit 1
case $python in /*) ;; */*) python=$PWD/$python ;; esac

# step: go to the folder of this script; paths that were typed count from where one stands
MUSUBITLX_FROM=$PWD
export MUSUBITLX_FROM
folder=$(script_folder) && cd -- "$folder" || exit 1

# step: hand over
exec "$python" -m musubitlx.bootstrap "$@"
