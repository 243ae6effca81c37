#!/usr/bin/env bash
# `make bench-data`: our loader and the reference's work in Python on the same files, in one run.
# The Python environment is kept outside of the clone and used again, as that of `make test-interop`.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

requirements=benches/peers/requirements.txt
cache=${AF2_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set AF2_CACHE to a folder}/.cache}/af2}
mkdir -p -- "$cache"
venv=$cache/peers-$(sha256sum "$requirements" | cut -c1-12)
(
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if [[ ! -e $venv/ready ]]; then
        echo "bench-data: installing the Python peer into $venv (3 GB to download, 5 GB of disk)"
        rm -rf -- "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        PIP_USER=0 "$venv/bin/python" -m pip --no-input install --quiet --disable-pip-version-check -r "$requirements"
        touch "$venv/ready"
    fi
) 9>"$venv.lock"
export AF2_PEER_PYTHON=$venv/bin/python
exec env -u MAKEFLAGS -u MFLAGS cargo bench --locked --quiet --bench data
