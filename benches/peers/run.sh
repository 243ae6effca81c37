#!/usr/bin/env bash
# `make bench-data`: our loader and the reference's work in Python on the same files, in one run.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

venv=$(scripts/python_env.sh peers benches/peers/requirements.txt)
export AF2_PEER_PYTHON=$venv/bin/python
exec env -u MAKEFLAGS -u MFLAGS cargo bench --locked --quiet --bench data
