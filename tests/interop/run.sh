#!/usr/bin/env bash
# Real PyTorch, safetensors and transformers as judges of the checkpoints that we write and read.
# `make test-interop` runs this. The Python environment (5 GB, full torch wheel) is kept outside of the
# clone and used again: AF2_CACHE, else XDG_CACHE_HOME/af2, else ~/.cache/af2.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

requirements=tests/interop/requirements.txt
cache=${AF2_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set: set AF2_CACHE to a folder}/.cache}/af2}
mkdir -p -- "$cache"
# Another list of packages is another environment.
venv=$cache/interop-$(sha256sum "$requirements" | cut -c1-12)

(
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if [[ ! -e $venv/ready ]]; then
        echo "interop: installing $(grep -vc '^#' "$requirements") packages into $venv (2.7 GB to download, 5 GB of disk)"
        rm -rf -- "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        PIP_USER=0 "$venv/bin/python" -m pip --no-input install --quiet --disable-pip-version-check -r "$requirements"
        touch "$venv/ready"
    fi
) 9>"$venv.lock"

export AF2_INTEROP_PYTHON=$venv/bin/python
# Nothing is fetched: every model is made on the spot.
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
exec env -u MAKEFLAGS -u MFLAGS cargo test --release --locked --test interop -- --ignored --test-threads=1 "$@"
