#!/usr/bin/env bash
# Trains with several processes on this machine, like a small cluster, to test flags and meshes.
#
#   launch/local.sh [--processes 2] [--devices 2] [--port 12355] [--dry-run] -- FLAGS OF durian train
#   launch/local.sh --processes 4 -- --config=tiny,stage=codec --workdir=runs/local --config.mesh.fsdp=2
#
# --devices: CPU devices per process; --port: port of process 0. Output lines start with the number of their process.
# If one process fails, the others are stopped. The same command resumes from the last checkpoint. SIGTERM saves and
# stops all. DURIAN: path of the program, if it is neither .venv/bin/durian nor on PATH.
set -euo pipefail

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
fail() { echo "local.sh: error: $1" >&2; exit 2; }

processes=2 devices=2 port=12355 dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --processes|--devices|--port)
      [ -n "${2:-}" ] || fail "$1 needs a value; see --help"
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    -h|--help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; the flags of durian train come after --" ;;
  esac
done
for number in "$processes" "$devices" "$port"; do
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "expected a positive number, found $number"
done
[ $# -gt 0 ] || fail "nothing to run; give --config and --workdir after --"

durian="${DURIAN:-durian}"
if [ -z "${DURIAN:-}" ] && [ -x .venv/bin/durian ]; then durian=.venv/bin/durian; fi
if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    echo "DURIAN_COORDINATOR=127.0.0.1:$port DURIAN_PROCESSES=$processes DURIAN_PROCESS=$i JAX_PLATFORMS=cpu" \
      "JAX_NUM_CPU_DEVICES=$devices $durian train $*"
  done
  exit 0
fi
command -v "$durian" > /dev/null || fail "$durian not found; install the package, or set DURIAN to the program's path"

pids=()
# shellcheck disable=SC2329  # a trap calls it
stop() { for pid in "${pids[@]}"; do kill -TERM "$pid" 2> /dev/null || true; done; }
trap stop TERM INT
export DURIAN_COORDINATOR="127.0.0.1:$port" DURIAN_PROCESSES="$processes" JAX_PLATFORMS=cpu
export JAX_NUM_CPU_DEVICES="$devices"
for ((i = 0; i < processes; i++)); do
  # With a process substitution $! is the program itself, so that signals reach it.
  DURIAN_PROCESS="$i" "$durian" train "$@" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  pids+=($!)
done

status=0 left=("${pids[@]}")
while [ "${#left[@]}" -gt 0 ]; do
  code=0
  wait -n -p ended "${left[@]}" || code=$?
  if [ -z "${ended:-}" ]; then continue; fi  # a signal ended the wait, not a process
  rest=()
  for pid in "${left[@]}"; do [ "$pid" = "$ended" ] || rest+=("$pid"); done
  left=("${rest[@]}")
  if [ "$code" -ne 0 ] && [ "$status" -eq 0 ]; then
    status=$code
    for number in "${!pids[@]}"; do
      [ "${pids[number]}" != "$ended" ] || first="process $number exited with status $code"
    done
    echo "local.sh: $first; stopping the others" >&2
    stop
    # The others detect the lost process within a minute and name it: leave them time for that.
    (sleep 90; for pid in "${left[@]}"; do kill -KILL "$pid" 2> /dev/null || true; done) > /dev/null 2>&1 &
    killer=$!
  fi
done
[ -z "${killer:-}" ] || kill "$killer" 2> /dev/null || true
case "$status" in
  0) ;;
  2) echo "local.sh: $first; see its error above" >&2 ;; # a mistake in the flags, which a restart would repeat
  *) echo "local.sh: $first; the same command resumes from the last checkpoint" >&2 ;;
esac
exit "$status"
