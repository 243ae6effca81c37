#!/usr/bin/env bash
# Trains a recipe on the GPUs of a Slurm job, one rank a GPU:
#
#   sbatch --nodes=16 scripts/slurm.sh recipes/af2-3b.yaml [key=value …]
#
# The job saves and ends when its time is nearly over (`--signal` below), is queued again, and goes on where it was. So it does
# after a node has failed: srun ends all ranks when one has, and Slurm requeues what it took down itself.
#SBATCH --job-name=af2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=af2-%j.log
set -euo pipefail

(($# > 0)) || {
    echo "usage: sbatch [--nodes=N …] scripts/slurm.sh RECIPE.yaml [key=value …]" >&2
    exit 2
}
# The ranks meet at the first node; the port is the job's own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))
OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS

# This shell gets the signal (B:); the ranks are told by it, save, and end with exit code 12.
srun --kill-on-bad-exit=1 "${AF2:-target/release/af2}" train "$@" --resume auto &
ranks=$!
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
code=0
wait "$ranks" || code=$?
# A trapped signal ends the first wait: the ranks are still saving.
while kill -0 "$ranks" 2>/dev/null; do
    code=0
    wait "$ranks" || code=$?
done
if ((code == 12)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
