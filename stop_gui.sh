#!/usr/bin/env bash
# Stops the MusubiTLX server. A training run goes on without it.
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

# step: hand over
folder=$(script_folder) || exit 1
exec bash "$folder/start_gui.sh" --stop "$@"
