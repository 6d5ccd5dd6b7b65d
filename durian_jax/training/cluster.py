"""Several processes that train together: joining, agreeing to stop, and saying who is missing."""

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

import jax
from jax._src import distributed

from durian_jax.errors import ClusterError, InputError

# Variables by which a launcher says that this process is one of several: those of machines that nothing else describes
# (launch/local.sh), and the one that says that JAX is to look for what TPU VMs, GKE and Slurm set.
_OWN = ("DURIAN_COORDINATOR", "DURIAN_PROCESSES", "DURIAN_PROCESS")
_CLUSTER = "DURIAN_CLUSTER"

# Where processes tell the coordinator that they live.
_ALIVE = "durian/alive/"
_DONE, _FAILED = "done", "failed"  # its last words

# How much longer than `silence` a process may take until it speaks at all.
_FIRST_SILENCE = 5

# JAX's own limit of silence, after which it aborts without saying who; ours comes first.
_JAX_SILENCE_SECONDS = 600


def join(timeout: int = 300) -> None:
    """Find the other processes, if the environment says that there are any; before anything else is done with JAX.

    Reads DURIAN_COORDINATOR (host:port of process 0), DURIAN_PROCESSES and DURIAN_PROCESS; or, with DURIAN_CLUSTER=auto
    and in a Slurm job of several tasks, what TPU VMs, GKE and Slurm set.

    Args:
        timeout: seconds to wait for them.

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
            raise InputError(f"expected {', '.join(_OWN)} (host:port, number of processes, this one's number), found "
                             f"{given}") from error
        if not 0 <= number < count or ":" not in address:
            raise InputError(f"DURIAN_PROCESS={number}: expected a number below DURIAN_PROCESSES={count}, and "
                             f"DURIAN_COORDINATOR={address} to be host:port")
        if count == 1:
            return
        arguments = {"coordinator_address": address, "num_processes": count, "process_id": number}
    elif not _launched_by_others():
        return
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX aborts the process when its time is over, without a word of advice; so this comes with it.
    address = arguments.get("coordinator_address", "the first of them")
    advice = threading.Timer(timeout, print, (
        f"durian: error: not all processes came within {timeout} s; JAX lists the numbers of those that did not. "
        f"Look at their logs, and that they can reach {address}",), {"file": sys.stderr, "flush": True})
    advice.daemon = True
    advice.start()
    try:
        with _roll_call(timeout):
            jax.distributed.initialize(**arguments, initialization_timeout=timeout + 10,
                                       heartbeat_timeout_seconds=_JAX_SILENCE_SECONDS)
    except ValueError as error:
        raise InputError(f"expected to be one of several processes, found {str(error).splitlines()[0][:300]}; set "
                         f"{', '.join(_OWN)}") from error
    except RuntimeError as error:
        raise ClusterError(f"the processes did not find each other: {str(error).splitlines()[0][:300]}") from error
    finally:
        advice.cancel()


@contextlib.contextmanager
def _roll_call(timeout: int) -> Iterator[None]:
    """A block in which the first process's service waits so long for the others, and then says who is missing.

    `jax.distributed.initialize` can limit the wait of each process only, none of which knows who else has come.
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
    """Refuse to train where the chips of other hosts are seen, but their processes were not found.

    Raises:
        InputError: see above.
    """
    if jax.process_count() > 1 and distributed.global_state.client is None:
        raise InputError(f"this is one of {jax.process_count()} hosts, which must find each other: set {_CLUSTER}=auto "
                         "on all of them")


def is_first() -> bool:
    """Whether this process is the one that writes logs, metrics and exports."""
    return jax.process_index() == 0


def barrier(name: str, minutes: int = 120) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        distributed.global_state.client.wait_at_barrier(f"durian/{name}", minutes * 60_000)


class Heartbeat:
    """Ends this process, saying why, when another one of the run has gone: a collective operation would wait for ever.

    Every process tells the coordinator that it lives, and looks when the others last did.

    Args:
        last_saved: gives the step of the last whole checkpoint.
        silence: seconds after which a process that has said nothing has gone.
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
            # An exchange with another process has failed; which one it was, `_run` will know, and end this one. Where a
            # barrier's time is over, the error names those that have not come.
            print(f"an exchange between processes has failed: {str(error)[:1000]}", file=sys.stderr)
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
            except RuntimeError:  # process 0, which keeps what they say, has gone: of the others nothing is known
                said = {process: str(now) for process in others if process != 0}
            for process in others:
                if said.get(process, heard[process][0]) != heard[process][0]:
                    heard[process] = said[process], now
                    self._hosts[process] = said[process].partition(" ")[2] or self._hosts.get(process, "")
            # Before it has said anything it may be opening its data.
            limit = lambda text: self._silence if text else _FIRST_SILENCE * self._silence
            gone = [process for process, (text, when) in heard.items()
                    if text == _FAILED or text != _DONE and now - when > limit(text)]
            if gone and not self._over.is_set():
                self._leave(gone)

    def _leave(self, gone: list[int]) -> None:
        names = ", ".join(map(str, gone))
        hosts = ", ".join(sorted({self._hosts[process] for process in gone if self._hosts.get(process)}))
        print(f"durian: error: process {names} of {jax.process_count()} has gone{hosts and f' (on {hosts})'}: it has "
              f"failed, or nothing was heard of it for {self._silence:.0f} s. Look at its log, then start all of them "
              f"again: the run goes on from step {self._last_saved() or 0}", file=sys.stderr, flush=True)
        if is_first():  # with it goes what the others hear each other by: let them say so first
            time.sleep(self._silence / 3)
        os._exit(1)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """A block after whose error this process ends without waiting for the others, which cannot go on either."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, InputError):
            print(f"durian: error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        os._exit(error.status if isinstance(error, InputError) else 1)


class Preemption:
    """Notices SIGTERM, by which machines that are about to be taken away say so.

    Several processes agree on the step after which they stop.
    """

    def __init__(self):
        self._asked = False
        self._before = None

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:  # else JAX's own service listens
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, *_) -> None:
        self._asked = True

    def stops_after(self, step: int) -> bool:
        """Whether this step is to be the last; every process asks after every step."""
        if jax.process_count() == 1:
            return self._asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)
