#!/usr/bin/env bash
# Trains on a Slurm cluster with one process per GPU (or per TPU host). Submit it with sbatch.
#
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 launch/slurm.sh FLAGS OF durian train
#   launch/slurm.sh --dry-run FLAGS OF durian train      print the command of each task
#
# The job gets SIGTERM two minutes before its time limit, and on preemption. The run then saves and stops. The job is
# requeued and resumes. Every node needs `durian` on PATH (or its path in DURIAN). All nodes must share the --workdir.
#SBATCH --job-name=durian
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=durian-%j.log
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
fail() { echo "slurm.sh: error: $1" >&2; exit 2; }

dry_run=""
case "${1:-}" in
  -h|--help) usage; exit 0 ;;
  --dry-run) dry_run=1; shift ;;
esac
[ "${1:-}" != -- ] || shift
[ $# -gt 0 ] || fail "nothing to run; give --config and --workdir"
command=(srun --kill-on-bad-exit=1 "${DURIAN:-durian}" train "$@")
if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
[ -n "${SLURM_JOB_ID:-}" ] || fail "expected a Slurm job, found none; submit this script: sbatch launch/slurm.sh ..."
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
export DURIAN_CLUSTER=auto
# Newer versions of srun do not inherit --cpus-per-task from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
status=0
"${command[@]}" 2>&1 | tee "$log" || status=$?  # a single task that was asked to stop exits with status 143
if grep -q "asked to stop (SIGTERM)" "$log"; then
  echo "slurm.sh: requeueing the job" >&2
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
