"""Training in several processes: they join, agree when to stop, and report lost processes."""

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from jax._src import distributed

from durian_jax.errors import ClusterError, InputError
from durian_jax.interruption import exit_status, signal_of, stop_message
from durian_jax.progress import say

# Environment variables from a launcher. _OWN describes the processes explicitly (launch/local.sh). With _CLUSTER,
# JAX uses the variables of TPU VMs, GKE or Slurm.
_OWN = ("DURIAN_COORDINATOR", "DURIAN_PROCESSES", "DURIAN_PROCESS")
_CLUSTER = "DURIAN_CLUSTER"

# Key of the heartbeats in the coordinator's store.
_ALIVE = "durian/alive/"
_DONE, _FAILED = "done", "failed"  # last heartbeat of a process
_ACCEPTED = "accepted"  # outcome of a check of the first process

# Before its first heartbeat a process may be silent for this multiple of `silence`.
_FIRST_SILENCE = 5

# JAX's own heartbeat limit. JAX then aborts without naming the lost process, so this must exceed our limit.
_JAX_SILENCE_SECONDS = 600


def join(timeout: int = 300) -> None:
    """Join the other processes of the run, if the environment describes several. Call this before any use of JAX.

    Reads DURIAN_COORDINATOR (host:port of process 0), DURIAN_PROCESSES and DURIAN_PROCESS. With DURIAN_CLUSTER=auto,
    and in a Slurm job of several tasks, JAX reads the variables of TPU VMs, GKE or Slurm instead.

    Args:
        timeout: seconds to wait for the other processes.

    Raises:
        InputError: variables that contradict each other, or that describe no cluster.
        ClusterError: the processes did not find each other.
    """
    given = {name: os.environ[name] for name in _OWN if os.environ.get(name)}
    arguments = {}
    if given:
        try:
            count, number = int(given["DURIAN_PROCESSES"]), int(given["DURIAN_PROCESS"])
            address = given["DURIAN_COORDINATOR"]
        except (KeyError, ValueError) as error:
            raise InputError(f"expected {', '.join(_OWN)} (host:port, number of processes, number of this process), "
                             f"found {given}; set all three") from error
        if not 0 <= number < count or ":" not in address:
            raise InputError(f"DURIAN_PROCESS={number}: expected a number from 0 to below DURIAN_PROCESSES={count}, "
                             f"and DURIAN_COORDINATOR={address} as host:port; correct these variables")
        if count == 1:
            return
        arguments = {"coordinator_address": address, "num_processes": count, "process_id": number}
    elif not _launched_by_others():
        return
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # At the timeout JAX aborts the process without advice, so print ours at the same time.
    address = arguments.get("coordinator_address", "the first process")
    advice = threading.Timer(timeout, print, (
        f"durian: error: not all processes joined within {timeout} s; JAX lists the numbers of the missing ones. "
        f"Read their logs, and check that they can reach {address}",), {"file": sys.stderr, "flush": True})
    advice.daemon = True
    advice.start()
    try:
        with _roll_call(timeout):
            jax.distributed.initialize(**arguments, initialization_timeout=timeout + 10,
                                       heartbeat_timeout_seconds=_JAX_SILENCE_SECONDS)
    except ValueError as error:
        raise InputError(f"expected the variables of a cluster, found {str(error).splitlines()[0][:300]}; set "
                         f"{', '.join(_OWN)}") from error
    except RuntimeError as error:
        raise ClusterError(f"the processes did not find each other: {str(error).splitlines()[0][:300]}") from error
    finally:
        advice.cancel()


@contextlib.contextmanager
def _roll_call(timeout: int) -> Iterator[None]:
    """Let the coordinator wait `timeout` seconds for all processes and then name the missing ones.

    `jax.distributed.initialize` can only limit the wait of each process, and a process does not know who is missing.
    """
    make_service = distributed._jax.get_distributed_runtime_service
    distributed._jax.get_distributed_runtime_service = partial(make_service, cluster_register_timeout=timeout)
    try:
        yield
    finally:
        distributed._jax.get_distributed_runtime_service = make_service


def _launched_by_others() -> bool:
    in_slurm = "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"
    return in_slurm or os.environ.get(_CLUSTER) == "auto"


def check_joined() -> None:
    """Refuse to train if JAX sees the chips of other hosts but this process did not join their processes.

    Raises:
        InputError: the processes of several hosts are not joined.
    """
    if jax.process_count() > 1 and distributed.global_state.client is None:
        raise InputError(f"expected joined processes, found one of {jax.process_count()} hosts alone; set {_CLUSTER}="
                         "auto on all hosts")


def is_first() -> bool:
    """Return whether this process is the first, which writes logs, metrics and exports."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Return whether this is the only process of the run."""
    return jax.process_count() == 1


def agreed(check: Callable[[], None], name: str) -> None:
    """Run a check in the first process only. Every process calls this, and raises what the check raises.

    Args:
        check: raises an InputError if the run must not start.
        name: of the check, unique in the run.
    """
    if jax.process_count() == 1:
        check()
        return
    store, refusal = distributed.global_state.client, ""
    if is_first():
        try:
            check()
        except InputError as error:
            refusal = str(error)
        store.key_value_set(f"durian/{name}", refusal or _ACCEPTED)
    refusal = store.blocking_key_value_get(f"durian/{name}", 600_000)
    barrier(name)  # the store ends with the first process
    if refusal != _ACCEPTED:
        raise InputError(refusal)


def barrier(name: str, minutes: int = 120) -> None:
    """Wait until every process reaches the barrier of this name."""
    if jax.process_count() > 1:
        distributed.global_state.client.wait_at_barrier(f"durian/{name}", minutes * 60_000)


class Heartbeat:
    """Context that ends this process with a message if another process of the run is lost.

    Without it a collective operation would wait for ever. Every process sends heartbeats to the coordinator and
    reads the others' heartbeats.

    Args:
        last_saved: returns the step of the last complete checkpoint.
        silence: seconds without a heartbeat after which a process counts as lost.
    """

    def __init__(self, last_saved: Callable[[], int | None], silence: float):
        self._last_saved, self._silence = last_saved, silence
        self._hosts: dict[int, str] = {}
        self._over = threading.Event()

    def __enter__(self) -> "Heartbeat":
        if jax.process_count() > 1:
            threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind, error, _) -> None:
        if isinstance(error, (jax.errors.JaxRuntimeError, ClusterError)) and jax.process_count() > 1:
            # Give `_run` time to find the lost process, report it and end this one. After a barrier's timeout nobody
            # may be lost, but then the error names the late processes.
            print(f"durian: an operation failed, perhaps because another process is lost: {str(error)[:1000]}",
                  file=sys.stderr)
            time.sleep(2 * self._silence)
        self._over.set()
        if jax.process_count() > 1:
            with contextlib.suppress(RuntimeError):
                self._tell(_DONE if kind is None else _FAILED)

    def _tell(self, text: str) -> None:
        client = distributed.global_state.client
        client.key_value_set(f"{_ALIVE}{jax.process_index()}", text, allow_overwrite=True)

    def _run(self) -> None:
        others = [process for process in range(jax.process_count()) if process != jax.process_index()]
        heard = dict.fromkeys(others, ("", time.monotonic()))
        host = socket.gethostname()
        beats = itertools.count()
        while not self._over.wait(self._silence / 6):
            now = time.monotonic()
            try:
                self._tell(f"{next(beats)} {host}")
                said = {int(key.removeprefix(_ALIVE)): text
                        for key, text in distributed.global_state.client.key_value_dir_get(_ALIVE)}
            except RuntimeError:  # process 0, which stores the heartbeats, is lost; assume that all others live
                said = {process: str(now) for process in others if process != 0}
            for process in others:
                if said.get(process, heard[process][0]) != heard[process][0]:
                    heard[process] = said[process], now
                    self._hosts[process] = said[process].partition(" ")[2] or self._hosts.get(process, "")
            # Before the first heartbeat a process may still open its data.
            limit = lambda text: self._silence if text else _FIRST_SILENCE * self._silence
            gone = [process for process, (text, when) in heard.items()
                    if text == _FAILED or text != _DONE and now - when > limit(text)]
            if gone and not self._over.is_set():
                self._leave(gone)

    def _leave(self, gone: list[int]) -> None:
        names = ", ".join(map(str, gone))
        hosts = ", ".join(sorted({self._hosts[process] for process in gone if self._hosts.get(process)}))
        print(f"durian: error: process {names} of {jax.process_count()} has exited or hangs"
              f"{hosts and f' (on {hosts})'}: it failed, or sent no heartbeat for {self._silence:.0f} s. Read its log, "
              f"then start all processes again: the run resumes from step {self._last_saved() or 0}",
              file=sys.stderr, flush=True)
        if is_first():  # the heartbeats end with process 0, so let the others report first
            time.sleep(self._silence / 3)
        os._exit(1)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Context that ends this process at once after an error, without waiting for the other processes.

    With a single process the error is raised as usual.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, KeyboardInterrupt):
            number = signal_of(error)
            print(stop_message(number, "the same command on all hosts resumes from the last checkpoint"),
                  file=sys.stderr, flush=True)
            os._exit(exit_status(number))
        if isinstance(error, InputError):
            print(f"durian: error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        os._exit(error.status if isinstance(error, InputError) else 1)


class Preemption:
    """Context that notices SIGTERM, which preemptible machines send before they are taken away, and the first Ctrl-C.

    Several processes agree on the step after which they stop. A second Ctrl-C stops at once.

    Attributes:
        signal: the signal that asked this process to stop, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        return self

    def listen(self) -> None:
        """Notice signals from now on. Before, they end the process: compiling takes long, and there is nothing to save.

        With several processes, JAX's own service handles SIGTERM, from the start.
        """
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,)
            self._before = {number: signal.signal(number, self._notice) for number in numbers}

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, _frame) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
            say("durian: stopping after this step; it is saved. Ctrl-C again stops at once")
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def stops_after(self, step: int) -> bool:
        """Return whether to stop after this step. Every process must call this after every step."""
        if jax.process_count() == 1:
            return self.signal is not None
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)
