"""The launch scripts, run with stand-ins for gcloud, kubectl, srun and scontrol that record their calls."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
RUN = ["--", "--config=configs/durian.py:sd15,stage=1", "--workdir=/mnt/durian/runs/1",
       "--config.model.unet.channels=(320,640)"]
TPU = [LAUNCH / "tpu_vm.sh", "--name", "d1", "--zone", "us-east5-b", "--type", "v6e-256", "--share", "10.0.0.2:/durian"]
GKE = [LAUNCH / "gke.sh", "--name", "d1", "--image", "registry/durian", "--claim", "data", "--accelerator",
       "tpu-v5p-slice", "--topology", "4x4x8"]

# A stand-in records its call and then runs the script that the test gives it.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "{name} $(printf '%q ' "$@")" >> "{calls}"
[ -t 0 ] || [ "{name}" != kubectl ] || cat >> "{calls}.stdin"
{script}
"""


@pytest.fixture
def machine(tmp_path):
    """Return a function that runs a script with stand-ins (name -> script) on PATH.

    It returns the finished process and the recorded calls.
    """
    def run(arguments, stand_ins, timeout=60, **environment):
        folder, calls = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir(exist_ok=True)
        for name, script in stand_ins.items():
            (folder / name).write_text(STAND_IN.format(name=name, calls=calls, script=script))
            (folder / name).chmod(0o755)
        done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "DURIAN_POLL_SECONDS": "0",
                                   "STATE": str(tmp_path / "state"), **environment})
        return done, calls.read_text().splitlines() if calls.exists() else []
    return run


# The first `describe` of a request grants it. `train` is the script of a training run.
GCLOUD = """
case "$*" in
  *"queued-resources create"*) echo WAITING > "$STATE" ;;
  *"queued-resources describe"*) cat "$STATE" 2> /dev/null || {{ echo NOT_FOUND >&2; exit 1; }}
    [ "$(cat "$STATE")" = SUSPENDED ] || echo ACTIVE > "$STATE" ;;
  *"queued-resources delete"*) rm -f "$STATE" ;;
  *"DURIAN_CLUSTER=auto"*) {train} ;;
esac
"""
FINISHED = 'echo "/mnt/durian/runs/1/export holds the averaged weights: pass it to --checkpoint"'
# A preempted run stops some time before its request is suspended.
TAKEN_AWAY = f'if [ -e "$STATE.again" ]; then {FINISHED}; else touch "$STATE.again"; ' \
             '(sleep 1; echo SUSPENDED > "$STATE") > /dev/null 2>&1 & echo "asked to stop (SIGTERM): saved"; fi'
LOST_HOST = f'if [ -e "$STATE.again" ]; then {FINISHED}; else touch "$STATE.again"; ' \
            'echo "[2] durian: error: process 3 of 64 has exited"; exit 2; fi'
LOST_WHILE_SAVING = LOST_HOST.replace("process 3 of 64 has exited", "the checkpoint of step 9 could not be written: x. "
                                     "Another process has exited, or is the disk full?")
BROKEN_LINE = f'if [ -e "$STATE.again" ]; then {FINISHED}; else touch "$STATE.again"; exit 255; fi'


def verbs(calls):
    """Reduce the calls of gcloud to create, scp, install, train and delete."""
    names = {"queued-resources create": "create", "tpu-vm scp": "scp", "mount": "install",
             "DURIAN_CLUSTER=auto": "train", "queued-resources delete": "delete"}
    return [verb for call in calls for text, verb in names.items() if text in call and "describe" not in call]


def test_a_slice_is_created_installed_used_and_deleted(machine):
    done, calls = machine([*TPU, "--spot", *RUN], {"gcloud": GCLOUD.format(train=FINISHED)})
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "install", "train", "delete"]
    create = next(call for call in calls if "create" in call)
    assert "--accelerator-type v6e-256 --runtime-version v2-alpha-tpuv6e --spot" in create
    train = next(call for call in calls if "DURIAN_CLUSTER=auto" in call)
    assert "--worker=all" in train and "channels=" in train
    assert "the request is ACTIVE" in done.stderr


def test_a_preempted_slice_is_requested_again(machine):
    done, calls = machine([*TPU, "--keep", *RUN], {"gcloud": GCLOUD.format(train=TAKEN_AWAY)},
                          DURIAN_POLL_SECONDS="0.2")
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "install", "train", "delete"] + ["create", "scp", "install", "train"]
    assert "was preempted (attempt 1 of 20)" in done.stderr and "is kept" in done.stderr


@pytest.mark.parametrize("train", [BROKEN_LINE, LOST_HOST, LOST_WHILE_SAVING], ids=["connection", "host", "saving"])
def test_a_lost_connection_or_process_restarts_the_run_on_the_same_slice(machine, train):
    done, calls = machine([*TPU, *RUN], {"gcloud": GCLOUD.format(train=train)})
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "install", "train", "scp", "install", "train", "delete"]


def test_an_outage_of_gcloud_does_not_end_a_run(machine):
    """The slice is kept if gcloud fails after a broken connection. Only a refused first request ends the script."""
    twice = 'case "$*" in *describe*) if [ -e "$STATE.again" ] && [ ! -e "$STATE.back" ]; then touch "$STATE.back"; ' \
            'echo "no network" >&2; exit 1; fi ;; esac\n'
    done, calls = machine([*TPU, *RUN], {"gcloud": twice + GCLOUD.format(train=BROKEN_LINE)})
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["create", "scp", "install", "train", "scp", "install", "train", "delete"]
    refuse = 'case "$*" in *"queued-resources create"*) echo "no such zone" >&2; exit 1 ;; esac\n'
    done, calls = machine([*TPU, *RUN], {"gcloud": refuse + GCLOUD.format(train=FINISHED)})
    assert done.returncode == 2 and "the slice could not be requested" in done.stderr


def test_a_run_that_fails_by_itself_is_not_repeated(machine):
    done, calls = machine([*TPU, *RUN], {"gcloud": GCLOUD.format(train='echo "durian: error: no clips"; exit 2')})
    assert done.returncode == 2 and "the run failed" in done.stderr
    assert verbs(calls) == ["create", "scp", "install", "train", "delete"]


def test_a_failing_setup_of_the_workers_is_tried_twice(machine):
    script = 'case "$*" in *"tpu-vm scp"*) echo "no such share" >&2; exit 1 ;; esac' + GCLOUD.format(train=FINISHED)
    done, calls = machine([*TPU, *RUN], {"gcloud": script})
    assert done.returncode == 2 and "the setup of the workers failed twice" in done.stderr
    assert verbs(calls) == ["create", "scp", "scp", "delete"]


def test_a_request_that_fails_is_not_repeated(machine):
    failed = 'case "$*" in *failedData*) echo "no quota" ;; *describe*) [ -e "$STATE" ] && echo FAILED || ' \
             '{ echo NOT_FOUND >&2; exit 1; } ;; *create*) touch "$STATE" ;; esac'
    done, calls = machine([*TPU, *RUN], {"gcloud": failed})
    assert done.returncode == 2 and "the request failed: no quota" in done.stderr
    assert verbs(calls) == ["create", "delete"]


def test_dry_runs_call_nothing(machine):
    recorded = {name: "" for name in ("gcloud", "kubectl", "srun", "scontrol", "durian")}
    for arguments in ([*TPU, "--dry-run", *RUN], [*GKE, "--dry-run", *RUN],
                      [LAUNCH / "slurm.sh", "--dry-run", *RUN[1:]],
                      [LAUNCH / "local.sh", "--dry-run", "--processes", "3", *RUN]):
        done, calls = machine(arguments, recorded)
        assert done.returncode == 0 and not calls, done.stderr
        assert "train" in done.stdout and "channels" in done.stdout
    assert done.stdout.count("DURIAN_PROCESS=") == 3


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_the_manifest_is_filled_in_and_applied(machine, tmp_path, phase):
    # A finished run of this name exists, and the first host needs a moment to start.
    pods = 'case "$*" in *"get jobset"*) [ -e "$STATE" ] || echo Completed ;; "delete jobset d1"*) touch "$STATE" ;; ' \
           f'*"get pod"*) [ ! -e "$STATE.pod" ] || echo {phase}; touch "$STATE.pod" ;; esac'
    odd = "--config.init_from=/mnt/durian/a b&c\\d"
    done, calls = machine([*GKE, "--slices", "2", *RUN, odd], {"kubectl": pods})
    assert done.returncode == 0, done.stderr
    assert [call.split()[1] for call in calls if "get" not in call] == ["delete", "apply", "logs"]
    manifest = yaml.safe_load((tmp_path / "calls.stdin").read_text())
    assert manifest["kind"] == "JobSet" and manifest["metadata"]["name"] == "d1"
    job = manifest["spec"]["replicatedJobs"][0]
    assert job["replicas"] == 2 and job["template"]["spec"]["completions"] == 32
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x8"
    container = pod["containers"][0]
    assert container["image"] == "registry/durian" and container["resources"]["limits"]["google.com/tpu"] == 4
    train = next(line for line in container["args"][0].splitlines() if line.startswith("durian train"))
    assert shlex.split(train.removesuffix("&"))[2:] == [*RUN[1:], odd]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "data"


@pytest.mark.parametrize(("durian", "status"), [
    ("exit 2", 2), ("exit 1", 1), ("exit 0", 0),
    # A stopped run saves and exits with status 0. The pod must fail, or the run would count as finished.
    ('trap "kill %1; exit 0" TERM; kill -TERM $PPID; sleep 20 & wait', 1),
    ('trap "kill %1; exit 2" TERM; kill -TERM $PPID; sleep 20 & wait', 1)],
    ids=["mistake", "failed", "finished", "stopped", "stopped without saving"])
def test_the_status_of_a_pod_decides_about_a_restart(machine, durian, status):
    manifest = yaml.safe_load(machine([*GKE, "--dry-run", *RUN], {})[0].stdout)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    container = job["template"]["spec"]["containers"][0]
    done, _ = machine([*container["command"], *container["args"]], {"durian": durian})
    assert done.returncode == status


def test_a_stopped_slurm_job_is_requeued(machine):
    done, calls = machine([LAUNCH / "slurm.sh", *RUN[1:]], {"srun": 'echo "asked to stop (SIGTERM): saved"',
                                                            "scontrol": ""}, SLURM_JOB_ID="17")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["srun", "scontrol"] and "requeue 17" in calls[-1]
    done, calls = machine([LAUNCH / "slurm.sh", *RUN[1:]], {"srun": FINISHED, "scontrol": ""}, SLURM_JOB_ID="17")
    assert [call.split()[0] for call in calls[2:]] == ["srun"]


@pytest.mark.parametrize(("arguments", "message"), [
    ([*TPU], "nothing to run"),
    ([*TPU[:3], *RUN], "--zone is missing"),
    ([*TPU, "--", "--workdir=runs/1"], "--workdir must be in the share"),
    ([*TPU, "--fast"], "unknown option --fast"),
    ([*TPU, "--runtime"], "--runtime needs a value"),
    ([*GKE[:2], "Durian_1", *GKE[3:], *RUN], "--name: expected lower-case letters, digits and dashes, found Durian_1"),
    ([*GKE, "--", "--workdir=/tmp/1"], "--workdir must be in the volume"),
    ([*GKE[:-1], "4by4", *RUN], "--topology: expected the form 16x16"),
    ([*GKE, "--chips", "3", *RUN], "--topology: expected a multiple of 3 chips"),
    ([LAUNCH / "local.sh", "--processes", "no", *RUN], "expected a positive number, found no"),
    ([LAUNCH / "slurm.sh", *RUN[1:]], "expected a Slurm job, found none"),
])
def test_mistakes_are_refused_before_any_call(machine, arguments, message):
    done, calls = machine(arguments, {name: "" for name in ("gcloud", "kubectl", "srun")}, SLURM_JOB_ID="")
    assert done.returncode == 2 and message in done.stderr and not calls


def test_local_processes_are_stopped_together(machine):
    """One process fails: the others are stopped, and the script exits with its status."""
    script = 'if [ "$DURIAN_PROCESS" = 1 ]; then sleep 2; exit 3; fi; ' \
             'trap "echo stopped; kill %1; exit 0" TERM; sleep 60 & wait'
    done, calls = machine([LAUNCH / "local.sh", "--processes", "3", *RUN], {"durian": script},
                          DURIAN="durian")
    assert done.returncode == 3 and len(calls) == 3
    assert "[0] stopped" in done.stdout and "[2] stopped" in done.stdout


def test_scripts_are_clean():
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker, "shellcheck comes with the test requirements"
    subprocess.run([checker, *LAUNCH.glob("*.sh")], check=True)
