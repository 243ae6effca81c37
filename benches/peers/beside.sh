#!/usr/bin/env bash
# `make bench-train`, `make bench-generate`: ours and the same in PyTorch and transformers, in one run; `make bench-eval`: ours and
# what the field scores with.
# With --full-size, --no-peer, or AF2_BENCH_DEVICE, ours alone.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

bench=$1
shift
if [[ -z ${AF2_BENCH_DEVICE:-} && " $* " != *" --full-size "* && " $* " != *" --no-peer "* ]]; then
    case $bench in
        eval) venv=$(scripts/python_env.sh scorers benches/peers/scorers.txt '0.2 GB to download, 0.9 GB of disk') ;;
        # What judges our checkpoints in `make test-interop` is what runs here.
        *) venv=$(scripts/python_env.sh interop tests/interop/requirements.txt) ;;
    esac
    export AF2_PEER_PYTHON=$venv/bin/python
fi
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
exec env -u MAKEFLAGS -u MFLAGS cargo bench --locked --quiet --bench "$bench" -- "$@"
