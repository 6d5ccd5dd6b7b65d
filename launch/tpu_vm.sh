#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs. Requests the slice, installs the last commit of this checkout on every worker, runs
# durian train and shows its output. Requests another slice after a preemption. Deletes the slice at the end.
#
#   launch/tpu_vm.sh --name durian-1 --zone us-east5-b --type v6e-256 --share 10.0.0.2:/durian -- FLAGS OF durian train
#
#   --name NAME       name of the queued resource and its node
#   --zone ZONE       zone with TPUs of this type
#   --type TYPE       accelerator type: v5litepod-256, v5p-128, v6e-256, ...
#   --share HOST:PATH NFS share (Filestore), mounted on every worker at /mnt/durian; put --workdir and data there:
#                     --workdir=/mnt/durian/runs/1
#   --runtime VERSION software of the TPU VM              [default: by type]
#   --project ID      Google Cloud project                [default: gcloud's]
#   --spot            cheaper slice that may be preempted at any time
#   --keep            do not delete the slice at the end
#   --attempts N      maximum number of starts of the run [default: 20]
#   --dry-run         print the commands, run none
#
# The same command resumes from the last checkpoint. Ctrl-C deletes the slice, unless --keep is given.
# DURIAN_POLL_SECONDS: seconds between requests to gcloud [default: 30].
set -euo pipefail

usage() { sed -n '2,21s/^# \{0,1\}//p' "$0"; }
fail() { echo "tpu_vm.sh: error: $1" >&2; exit 2; }
say() { echo "tpu_vm.sh: $*" >&2; }

name="" zone="" type="" share="" runtime="" project="" spot="" keep="" dry_run="" attempts=20
while [ $# -gt 0 ]; do
  case "$1" in
    --name|--zone|--type|--share|--runtime|--project|--attempts)
      [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    --spot) spot=1; shift ;;
    --keep) keep=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    -h|--help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; the flags of durian train come after --" ;;
  esac
done
for option in name zone type share; do
  [ -n "${!option}" ] || fail "--$option is missing; see --help"
done
[[ "$attempts" =~ ^[1-9][0-9]*$ ]] || fail "--attempts: expected a positive number, found $attempts"
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name: expected lower-case letters, digits and dashes, found $name"
[ $# -gt 0 ] || fail "nothing to run; give --config and --workdir after --"
case " $* " in
  *" --workdir=/mnt/durian/"*) ;;
  *) fail "--workdir must be in the share, such as --workdir=/mnt/durian/runs/1; other paths are lost with the slice" ;;
esac
if [ -z "$runtime" ]; then
  case "$type" in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) fail "--type $type: expected v5litepod-N (v5e), v5p-N or v6e-N; for other types, add --runtime" ;;
  esac
fi
cd "$(dirname "$0")/.."
if [ -z "$dry_run" ]; then
  command -v gcloud > /dev/null || fail "gcloud not found; install the Google Cloud CLI and log in"
  git rev-parse --git-dir > /dev/null 2>&1 || fail "$PWD is not a git checkout; run this script from a clone"
  [ -z "$(git status --porcelain)" ] || say "uncommitted changes are not installed"
fi

where=(--zone "$zone")
[ -z "$project" ] || where+=(--project "$project")
run() {
  if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
queued() { gcloud compute tpus queued-resources "$@"; }
# Prints the state of the request: nothing without a request, UNKNOWN if gcloud fails.
state() {
  local answer
  if answer="$(queued describe "$name" "${where[@]}" --format='value(state.state)' 2>&1)"; then
    echo "$answer"
  elif [[ "$answer" != *NOT_FOUND* ]]; then
    say "gcloud: $answer"
    echo UNKNOWN
  fi
}
on_all() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command "$1"; }

delete() { run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet || true; }
# shellcheck disable=SC2329  # a trap calls it
leave() {
  local status=$?
  rm -f "$archive" "$log"
  if [ -n "$keep" ]; then say "the slice $name is kept and billed until you delete it"; else delete; fi
  exit "$status"
}

create() {
  local options=(--node-id "$name" --accelerator-type "$type" --runtime-version "$runtime")
  [ -z "$spot" ] || options+=(--spot)
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}"
}

# Waits until the slice is ready. Returns 1 if the request was suspended or deleted.
wait_for_slice() {
  [ -z "$dry_run" ] || { echo "# wait until: gcloud compute tpus queued-resources describe $name says ACTIVE"; return 0; }
  local before="" now failures=0
  while true; do
    now="$(state)"
    [ "$now" = "$before" ] || say "the request is ${now:-gone}"
    before="$now"
    case "$now" in
      ACTIVE) return 0 ;;
      FAILED)
        fail "the request failed: $(queued describe "$name" "${where[@]}" \
          --format='value(state.failedData.error.message)' 2>&1)" ;;
      SUSPENDED|SUSPENDING|"") return 1 ;;
      UNKNOWN) failures=$((failures + 1)); [ "$failures" -lt 10 ] || fail "gcloud failed 10 times; see above" ;;
    esac
    sleep "${DURIAN_POLL_SECONDS:-30}"
  done
}

install() {
  run git archive --format=tar.gz --output="$archive" HEAD || return 1
  run gcloud compute tpus tpu-vm scp "$archive" "$name:durian.tar.gz" "${where[@]}" --worker=all || return 1
  on_all "set -e
pkill -TERM -f '[.]venv/bin/durian train' || true  # a run that an interrupted launch left behind
for ((i = 0; i < 60; i++)); do pgrep -f '[.]venv/bin/durian train' > /dev/null || break; sleep 5; done
mkdir -p durian && cd durian
find . -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
tar xzf ../durian.tar.gz
dpkg -s nfs-common python3.11-venv > /dev/null 2>&1 || {
  sudo apt-get update -qq && sudo apt-get install -qq -y nfs-common python3.11-venv; }
sudo mkdir -p /mnt/durian
mountpoint -q /mnt/durian || sudo mount -t nfs $(printf '%q' "$share") /mnt/durian
cat setup.py constraints.txt | cmp -s - .venv/installed || {
  python3.11 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[tpu]'
  cat setup.py constraints.txt > .venv/installed; }"
}

# Succeeds only if the run is complete. A preempted run of several hosts saves and exits with status 0, so check its
# output too.
train() {
  local flags
  printf -v flags '%q ' "$@"
  on_all "cd durian && DURIAN_CLUSTER=auto .venv/bin/durian train $flags" 2>&1 | tee "$log" || return 1
  [ -n "$dry_run" ] || grep -q "holds the averaged weights" "$log"
}

# True if the run failed by itself, and not because a process or its host was lost. The texts are those of ClusterError.
has_failed() {
  grep -E "durian: error|^Traceback" "$log" \
    | grep -vE "has exited|not all processes joined|did not find each other" > /dev/null
}

log=/dev/null archive=durian.tar.gz
if [ -z "$dry_run" ]; then
  log="$(mktemp)" archive="$(mktemp --suffix=.tar.gz)"
  trap leave EXIT
fi
unprepared=0
for ((attempt = 1; attempt <= attempts; attempt++)); do
  if [ -n "$dry_run" ] || [ -z "$(state)" ]; then
    create || { # a first failure is a mistake in the options, a later one is an outage
      [ "$attempt" -gt 1 ] || fail "the slice could not be requested; see gcloud's error above"
      sleep "${DURIAN_POLL_SECONDS:-30}"
    }
  fi
  unprepared=$((unprepared + 1))
  if wait_for_slice && install && unprepared=0 && train "$@"; then
    if [ -z "$dry_run" ]; then say "the run is complete"; elif [ -z "$keep" ]; then delete; fi
    exit 0
  fi
  if has_failed; then fail "the run failed; see its output above"; fi
  # A preempted run stops some time before its request is suspended. Wait, to tell this from a broken connection.
  for ((wait = 0; wait < 20; wait++)); do
    now="$(state)"
    [[ "$now" =~ ^(ACTIVE|SUSPENDING|UNKNOWN)$ ]] || break
    sleep "${DURIAN_POLL_SECONDS:-30}"
  done
  if [[ "$now" =~ ^(ACTIVE|UNKNOWN)$ ]]; then
    [ "$unprepared" -lt 2 ] || fail "the setup of the workers failed twice; see its output above and check --share"
    say "the slice still exists (attempt $attempt of $attempts); restarting the run on it"
  else
    say "the slice was preempted (attempt $attempt of $attempts); requesting another one; the run resumes" \
      "from its last checkpoint"
    delete
    unprepared=0
  fi
  : > "$log"
done
fail "the run is not complete after $attempts attempts; repeat the command to continue"
