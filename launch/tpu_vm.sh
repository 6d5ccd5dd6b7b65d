#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs: asks for it, waits, installs this checkout on every worker, runs durian train on all
# of them, follows their output, asks again when the slice is taken away, and deletes it at the end.
#
#   launch/tpu_vm.sh --name durian-1 --zone us-east5-b --type v6e-256 --share 10.0.0.2:/durian -- FLAGS OF durian train
#
#   --name NAME       of the queued resource and its node
#   --zone ZONE       with such TPUs
#   --type TYPE       accelerator type: v5litepod-256, v5p-128, v6e-256, ...
#   --share HOST:PATH an NFS share (Filestore), mounted on every worker at /mnt/durian; --workdir and data lie in it:
#                     --workdir=/mnt/durian/runs/1
#   --runtime VERSION software of the TPU VM              [default: by type]
#   --project ID      Google Cloud project                [default: gcloud's]
#   --spot            cheaper, may be taken away at any time
#   --keep            do not delete the slice at the end
#   --attempts N      how often to ask for a slice        [default: 20]
#   --dry-run         print the commands, run none
#
# The same command again goes on from the last checkpoint. Ctrl-C deletes the slice, unless --keep is given.
# DURIAN_POLL_SECONDS: between questions to gcloud [default: 30].
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
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "--name: expected small letters, digits and dashes, found $name"
[ $# -gt 0 ] || fail "nothing to run; name --config and --workdir after --"
case " $* " in
  *" --workdir=/mnt/durian/"*) ;;
  *) fail "--workdir must lie in the share, as in --workdir=/mnt/durian/runs/1, or a run could not go on on another slice" ;;
esac
if [ -z "$runtime" ]; then
  case "$type" in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) fail "--type $type: expected v5litepod-N (v5e), v5p-N or v6e-N; for others name --runtime, too" ;;
  esac
fi
cd "$(dirname "$0")/.."
if [ -z "$dry_run" ]; then
  command -v gcloud > /dev/null || fail "gcloud not found; install the Google Cloud CLI and log in"
  git rev-parse --git-dir > /dev/null 2>&1 || fail "$PWD is no git checkout; what is installed is its last commit"
  [ -z "$(git status --porcelain)" ] || say "uncommitted changes are not installed"
fi

where=(--zone "$zone")
[ -z "$project" ] || where+=(--project "$project")
run() {
  if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
queued() { gcloud compute tpus queued-resources "$@"; }
# The state of the request; nothing where there is none, UNKNOWN where gcloud fails.
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
  if [ -n "$keep" ]; then say "the slice $name is kept; it costs until you delete it"; else delete; fi
  exit "$status"
}

create() {
  local options=(--node-id "$name" --accelerator-type "$type" --runtime-version "$runtime")
  [ -z "$spot" ] || options+=(--spot)
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}"
}

# Until the slice is there; fails where the request has come to an end.
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
        fail "the request has failed: $(queued describe "$name" "${where[@]}" \
          --format='value(state.failedData.error.message)' 2>&1)" ;;
      SUSPENDED|SUSPENDING|"") return 1 ;;
      UNKNOWN) failures=$((failures + 1)); [ "$failures" -lt 10 ] || fail "gcloud does not answer" ;;
    esac
    sleep "${DURIAN_POLL_SECONDS:-30}"
  done
}

install() {
  run git archive --format=tar.gz --output="$archive" HEAD || return 1
  run gcloud compute tpus tpu-vm scp "$archive" "$name:durian.tar.gz" "${where[@]}" --worker=all || return 1
  on_all "set -e
pkill -TERM -f '[.]venv/bin/durian train' || true  # that of a launch whose desk went down
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

# Fails unless the run has reached its end: a slice that is taken away makes it save and stop, which is no error.
train() {
  local flags
  printf -v flags '%q ' "$@"
  on_all "cd durian && DURIAN_CLUSTER=auto .venv/bin/durian train $flags" 2>&1 | tee "$log" || return 1
  [ -n "$dry_run" ] || grep -q "holds the averaged weights" "$log"
}

# Whether the run has stopped by a mistake of its own, and not because one of its processes has gone with its host.
has_failed() {
  grep -E "durian: error|^Traceback" "$log" | grep -vE "has gone|not all processes came|did not find each other" > /dev/null
}

log=/dev/null archive=durian.tar.gz
if [ -z "$dry_run" ]; then
  log="$(mktemp)" archive="$(mktemp --suffix=.tar.gz)"
  trap leave EXIT
fi
unprepared=0
for ((attempt = 1; attempt <= attempts; attempt++)); do
  if [ -n "$dry_run" ] || [ -z "$(state)" ]; then
    create || { # the first time by a mistake, later by an outage
      [ "$attempt" -gt 1 ] || fail "the slice could not be asked for; see what gcloud says above"
      sleep "${DURIAN_POLL_SECONDS:-30}"
    }
  fi
  unprepared=$((unprepared + 1))
  if wait_for_slice && install && unprepared=0 && train "$@"; then
    if [ -z "$dry_run" ]; then say "the run has ended"; elif [ -z "$keep" ]; then delete; fi
    exit 0
  fi
  if has_failed; then fail "the run has failed; see its output above"; fi
  # A slice is told to go some time before its request says so, and a connection may break: wait for what becomes of it.
  for ((wait = 0; wait < 20; wait++)); do
    now="$(state)"
    [[ "$now" =~ ^(ACTIVE|SUSPENDING|UNKNOWN)$ ]] || break
    sleep "${DURIAN_POLL_SECONDS:-30}"
  done
  if [[ "$now" =~ ^(ACTIVE|UNKNOWN)$ ]]; then
    [ "$unprepared" -lt 2 ] || fail "the workers could not be set up, twice; see what they say above, and check --share"
    say "the slice is still there (attempt $attempt of $attempts); starting the run on it again"
  else
    say "the slice was taken away (attempt $attempt of $attempts); asking for another, the run goes on from its last" \
      "checkpoint"
    delete
    unprepared=0
  fi
  : > "$log"
done
fail "no slice after $attempts attempts"
