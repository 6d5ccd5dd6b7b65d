#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster. Fills in launch/gke.yaml, applies it and shows the output of the first host.
# Deletes a finished run of the same name first.
#
#   launch/gke.sh --name durian-1 --image REGION-docker.pkg.dev/PROJECT/REPOSITORY/durian --claim durian-data \
#       --accelerator tpu-v5-lite-podslice --topology 16x16 -- FLAGS OF durian train
#
#   --name NAME         name of the JobSet
#   --image IMAGE       image built from launch/Dockerfile
#   --claim CLAIM       volume that many pods can write (Filestore), mounted at /mnt/durian; put --workdir and data
#                       there: --workdir=/mnt/durian/runs/1
#   --accelerator KIND  tpu-v5-lite-podslice, tpu-v5p-slice or tpu-v6e-slice
#   --topology T        topology of a slice, such as 16x16
#   --slices N          number of slices                      [default: 1]
#   --chips N           chips per host                        [default: 4]
#   --dry-run           print the manifest, apply nothing
#
# The same with XPK, after `xpk cluster create` and `xpk storage create --mount-point=/mnt/durian`:
#   xpk workload create --cluster CLUSTER --workload durian-1 --tpu-type v5litepod-256 --num-slices 1 \
#       --max-restarts 50 --storage STORAGE --docker-image IMAGE --command "DURIAN_CLUSTER=auto durian train FLAGS"
#
# DURIAN_POLL_SECONDS: seconds between requests to kubectl [default: 10].
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
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name: expected lower-case letters, digits and dashes, found $name"
[[ "$topology" =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology: expected the form 16x16 or 4x4x4, found $topology"
for number in "$slices" "$chips"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "expected a positive number, found $number"
done
[ $# -gt 0 ] || fail "nothing to run; give --config and --workdir after --"
case " $* " in
  *" --workdir=/mnt/durian/"*) ;;
  *) fail "--workdir must be in the volume, such as --workdir=/mnt/durian/runs/1; other paths are lost with the pod" ;;
esac
total=$((${topology//x/*}))
[ $((total % chips)) -eq 0 ] || fail "--topology: expected a multiple of $chips chips (--chips), found $total"

printf -v flags '%q ' "$@"
shopt -u patsub_replacement 2> /dev/null || true  # otherwise & in a flag would mean the replaced text
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
command -v kubectl > /dev/null || fail "kubectl not found; install it and select the cluster"
state() { kubectl get jobset "$name" --ignore-not-found -o jsonpath='{.status.terminalState}'; }
[ -z "$(state)" ] || kubectl delete jobset "$name" --cascade=foreground  # wait until its pods are deleted
kubectl apply -f - <<< "$manifest"
selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
phase() { kubectl get pod -l "$selector" -o jsonpath='{.items[0].status.phase}' 2> /dev/null || true; }
# Wait until the first host has started, or the run is over.
until [[ "$(phase)" =~ ^(Running|Succeeded|Failed)$ ]] || [ -n "$(state)" ]; do sleep "${DURIAN_POLL_SECONDS:-10}"; done
kubectl logs -f -l "$selector" --tail=-1
echo "gke.sh: the output of the first host has ended; JobSet restarts a lost run, see kubectl get jobset $name" >&2
