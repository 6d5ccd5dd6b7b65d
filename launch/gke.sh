#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster: fills in launch/gke.yaml, applies it and follows the first host's output. A
# finished run of the same name makes way.
#
#   launch/gke.sh --name durian-1 --image REGION-docker.pkg.dev/PROJECT/REPOSITORY/durian --claim durian-data \
#       --accelerator tpu-v5-lite-podslice --topology 16x16 -- FLAGS OF durian train
#
#   --name NAME         of the JobSet
#   --image IMAGE       made of launch/Dockerfile
#   --claim CLAIM       a volume that many pods may write (Filestore), mounted at /mnt/durian; --workdir and data lie in
#                       it: --workdir=/mnt/durian/runs/1
#   --accelerator KIND  tpu-v5-lite-podslice, tpu-v5p-slice or tpu-v6e-slice
#   --topology T        of a slice, such as 16x16
#   --slices N          [default: 1]
#   --chips N           of a host                             [default: 4]
#   --dry-run           print the manifest, apply nothing
#
# With XPK instead, on a cluster of `xpk cluster create` with a storage of `xpk storage create --mount-point=/mnt/durian`:
#   xpk workload create --cluster CLUSTER --workload durian-1 --tpu-type v5litepod-256 --num-slices 1 --max-restarts 50 \
#       --storage STORAGE --docker-image IMAGE --command "DURIAN_CLUSTER=auto durian train FLAGS"
#
# DURIAN_POLL_SECONDS: between questions to kubectl [default: 10].
set -euo pipefail

usage() { sed -n '2,23s/^# \{0,1\}//p' "$0"; }
fail() { echo "gke.sh: error: $1" >&2; exit 2; }

name="" image="" claim="" accelerator="" topology="" slices=1 chips=4 dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name|--image|--claim|--accelerator|--topology|--slices|--chips)
      [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    -h|--help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; the flags of durian train come after --" ;;
  esac
done
for option in name image claim accelerator topology; do
  [ -n "${!option}" ] || fail "--$option is missing; see --help"
done
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name: expected small letters, digits and dashes, found $name"
[[ "$topology" =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology: expected such as 16x16 or 4x4x4, found $topology"
for number in "$slices" "$chips"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "expected a positive number, found $number"
done
[ $# -gt 0 ] || fail "nothing to run; name --config and --workdir after --"
case " $* " in
  *" --workdir=/mnt/durian/"*) ;;
  *) fail "--workdir must lie in the volume, as in --workdir=/mnt/durian/runs/1, or it would go with the pod" ;;
esac
total=$((${topology//x/*}))
[ $((total % chips)) -eq 0 ] || fail "a slice of $total chips has no whole number of hosts of $chips chips"

printf -v flags '%q ' "$@"
shopt -u patsub_replacement 2> /dev/null || true  # else & in a flag would stand for what it takes the place of
template="$(< "$(dirname "$0")/gke.yaml")"
manifest="${template//NAME/$name}"
manifest="${manifest//IMAGE/$image}"
manifest="${manifest//CLAIM/$claim}"
manifest="${manifest//ACCELERATOR/$accelerator}"
manifest="${manifest//TOPOLOGY/$topology}"
manifest="${manifest//SLICES/$slices}"
manifest="${manifest//HOSTS/$((total / chips))}"
manifest="${manifest//CHIPS/$chips}"
manifest="${manifest//FLAGS/$flags}"

if [ -n "$dry_run" ]; then
  echo "$manifest"
  exit 0
fi
command -v kubectl > /dev/null || fail "kubectl not found; install it and choose the cluster"
state() { kubectl get jobset "$name" --ignore-not-found -o jsonpath='{.status.terminalState}'; }
[ -z "$(state)" ] || kubectl delete jobset "$name" --cascade=foreground  # with its pods
kubectl apply -f - <<< "$manifest"
selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
phase() { kubectl get pod -l "$selector" -o jsonpath='{.items[0].status.phase}' 2> /dev/null || true; }
# Until the first host has begun, or all of it is over.
until [[ "$(phase)" =~ ^(Running|Succeeded|Failed)$ ]] || [ -n "$(state)" ]; do sleep "${DURIAN_POLL_SECONDS:-10}"; done
kubectl logs -f -l "$selector" --tail=-1
echo "gke.sh: the first host's output has ended; see kubectl get jobset $name, which starts a lost run again" >&2
