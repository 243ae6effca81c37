#!/usr/bin/env bash
# Real PyTorch, safetensors and transformers as judges of the checkpoints that we write and read, and torchrun as launcher.
# The `openai` package asks `af2 serve`; inspect, lm-evaluation-harness, huggingface_hub and Every Eval Ever read what `af2 export` writes.
# `make test-interop` runs this.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

venv=$(scripts/python_env.sh interop tests/interop/requirements.txt)
export AF2_INTEROP_PYTHON=$venv/bin/python
# Nothing is fetched: every model is made on the spot.
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
exec env -u MAKEFLAGS -u MFLAGS cargo test --release --locked --test interop --test cuda_set --test doctor --test training --test serve -- --ignored --test-threads=1 "$@"
