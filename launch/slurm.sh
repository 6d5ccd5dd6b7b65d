#!/usr/bin/env bash
# Trains on a Slurm cluster, a process for every GPU (or host of TPUs); to be handed to sbatch.
#
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 launch/slurm.sh FLAGS OF durian train
#   launch/slurm.sh --dry-run FLAGS OF durian train      print the command that each task runs
#
# Two minutes before its time is over, or when it is preempted, the job gets SIGTERM: the run saves and stops, and the
# job is queued again and goes on from there. Needs `durian` on PATH on every node (or its path in DURIAN), and a
# --workdir that all nodes share.
#SBATCH --job-name=durian
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=durian-%j.log
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
fail() { echo "slurm.sh: error: $1" >&2; exit 2; }

dry_run=""
case "${1:-}" in
  -h|--help) usage; exit 0 ;;
  --dry-run) dry_run=1; shift ;;
esac
[ "${1:-}" != -- ] || shift
[ $# -gt 0 ] || fail "nothing to run; name --config and --workdir"
command=(srun --kill-on-bad-exit=1 "${DURIAN:-durian}" train "$@")
if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
[ -n "${SLURM_JOB_ID:-}" ] || fail "not inside a job; hand it to sbatch: sbatch launch/slurm.sh ..."
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
export DURIAN_CLUSTER=auto
# Newer versions of srun do not take sbatch's over.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
"${command[@]}" 2>&1 | tee "$log"
if grep -q "asked to stop (SIGTERM)" "$log"; then
  echo "slurm.sh: queueing the job again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
