#!/usr/bin/env bash
# Makes a Python environment from a list of packages and prints its path. It is kept outside of the clone and used
# again: AF2_CACHE, else XDG_CACHE_HOME/af2, else ~/.cache/af2. Another list is another environment.
#
#   scripts/python_env.sh NAME REQUIREMENTS [WHAT IT COSTS]
#   PYTHON=...   the interpreter that makes it
set -euo pipefail
name=$1 requirements=$2 costs=${3:-3 GB to download, 5 GB of disk}

cache=${AF2_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set AF2_CACHE to a folder}/.cache}/af2}
mkdir -p -- "$cache"
venv=$cache/$name-$(sha256sum "$requirements" | cut -c1-12)
(
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if [[ ! -e $venv/ready ]]; then
        echo "$name: installing $(grep -vc '^#' "$requirements") packages into $venv ($costs)" >&2
        rm -rf -- "$venv"
        "${PYTHON:-python3}" -m venv "$venv" >&2
        PIP_USER=0 "$venv/bin/python" -m pip --no-input install --quiet --disable-pip-version-check -r "$requirements" >&2
        touch "$venv/ready"
    fi
) 9>"$venv.lock"
printf '%s\n' "$venv"
