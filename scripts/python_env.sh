#!/usr/bin/env bash
# Makes a Python environment from a list of packages and prints its path. It is kept outside of the clone and used
# again: AF2_CACHE, else XDG_CACHE_HOME/af2, else ~/.cache/af2. Another list is another environment.
# A list NAME-alone.txt beside NAME.txt is of packages that are installed without their dependencies.
#
#   scripts/python_env.sh NAME REQUIREMENTS [WHAT IT COSTS]
#   PYTHON=...   the interpreter that makes it
set -euo pipefail
name=$1 requirements=$2 costs=${3:-3 GB to download, 5 GB of disk}
lists=("$requirements") alone=${requirements%.txt}-alone.txt
if [[ -e $alone ]]; then lists+=("$alone"); fi

cache=${AF2_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set AF2_CACHE to a folder}/.cache}/af2}
mkdir -p -- "$cache"
venv=$cache/$name-$(cat -- "${lists[@]}" | sha256sum | cut -c1-12)
(
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if [[ ! -e $venv/ready ]]; then
        echo "$name: installing $(cat -- "${lists[@]}" | grep -vc '^#') packages into $venv ($costs)" >&2
        rm -rf -- "$venv"
        "${PYTHON:-python3}" -m venv "$venv" >&2
        PIP_USER=0 "$venv/bin/python" -m pip --no-input install --quiet --disable-pip-version-check -r "$requirements" >&2
        if [[ -e $alone ]]; then
            PIP_USER=0 "$venv/bin/python" -m pip --no-input install --quiet --disable-pip-version-check --no-deps --ignore-requires-python -r "$alone" >&2
        fi
        touch "$venv/ready"
    fi
) 9>"$venv.lock"
printf '%s\n' "$venv"
