#!/usr/bin/env bash
# Trains a recipe on the GPUs of a Slurm job, one rank a GPU:
#
#   sbatch --nodes=16 scripts/slurm.sh recipes/af2-3b.yaml [key=value …]
#
# Five minutes before its time is over the job saves, is queued again, and goes on where it was (USR1, from `--signal` below);
# so it does after a node has failed, when Slurm itself queues it again. After a rank has failed all are started again, at most
# AF2_RESTARTS times (3). `scancel JOB` ends it for good; `scancel --signal=TERM JOB` saves before.
#SBATCH --job-name=af2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=af2-%j.log
set -euo pipefail

(($# > 0)) || {
    echo "usage: sbatch [--nodes=N …] scripts/slurm.sh RECIPE.yaml [key=value …]" >&2
    exit 2
}
# The ranks meet at the first node; where it is the only one they need not listen to others. The port is the job's own.
MASTER_ADDR=127.0.0.1
if [[ ${SLURM_JOB_NUM_NODES:-0} != 1 ]]; then
    MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
fi
MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))
OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS

# This shell gets the signal (B:) and tells the ranks, which save, and end with exit code 12.
told=no
tell() {
    told=yes caught=yes
    scancel --signal=TERM "$SLURM_JOB_ID.$step" || true
}
trap tell USR1

code=1
for ((step = 0; step <= ${AF2_RESTARTS:-3}; step++)); do
    # Slurm does not hand on the number of cores by itself. --wait: time for the ranks that are left to save when one has died.
    srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=300 \
        "${AF2:-target/release/af2}" train "$@" --resume auto &
    ranks=$!
    # A trapped signal ends a wait early: the ranks are still saving, and their code is still to come.
    caught=yes
    while [[ $caught == yes ]]; do
        caught=no code=0
        wait "$ranks" || code=$?
    done
    if [[ $told == yes && $code -ne 0 ]]; then
        scontrol requeue "$SLURM_JOB_ID"
        exit "$code"
    fi
    # What another try may mend: lost ranks (11), and those that were killed. A recipe that is wrong stays so.
    if ((code != 11 && code < 128)); then
        exit "$code"
    fi
    echo "af2: the ranks ended with $code" >&2
done
exit "$code"
