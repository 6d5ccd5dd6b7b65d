"""Ctrl-C and SIGTERM end a command with one line, whatever its main thread does."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from durian_jax import interruption
from durian_jax.commands.main import VERBS, main

PROGRAM = """
import hashlib, sys, time
from pathlib import Path
from durian_jax import interruption
from durian_jax.files import atomic_file

interruption._PATIENCE, interruption._CLEANING = 0.2, 0.2

@interruption.stoppable(lambda folder, **_: f"{folder} is unchanged; repeat the command")
def work(folder, how):
    with atomic_file(Path(folder) / "result.txt"):
        print("begun", flush=True)
        if how == "Python":
            time.sleep(600)
        elif how == "outside":  # as compiled code: signal handlers wait until the call ends
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        try:
            time.sleep(600)
        finally:
            time.sleep(600)  # cleaning up takes too long

work(folder=sys.argv[1], how=sys.argv[2])
"""


def begun(*arguments: str, program: str = PROGRAM) -> subprocess.Popen:
    """Start a program and wait until it says that it has begun."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n", process.communicate()[1]
    return process


@pytest.mark.parametrize("how", ["Python", "outside", "slow to clean up"])
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_one_line_one_status_and_no_temporary_file(how, number, name, tmp_path):
    process = begun(str(tmp_path), how)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.strip() == f"durian: stopped ({name}): {tmp_path} is unchanged; repeat the command"
    assert not list(tmp_path.iterdir())


def test_a_second_interrupt_ends_the_process_at_once(tmp_path):
    slow = PROGRAM.replace("0.2, 0.2", "0.2, 600")
    process = begun(str(tmp_path), "slow to clean up", program=slow)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.count("durian: stopped (Ctrl-C)") == 1
    assert not list(tmp_path.iterdir())


OWN_HANDLER = """
import hashlib, signal
from durian_jax import interruption
interruption._PATIENCE = 0.2

@interruption.stoppable(lambda: "unused")
def work():
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    print("begun", flush=True)
    while not asked:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)
    print("finished its step")

work()
"""


def test_code_with_a_handler_of_its_own_is_left_alone():
    """A training loop finishes its step, however long that takes."""
    process = begun(program=OWN_HANDLER)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "finished its step\n", "")


def test_without_a_signal_nothing_changes():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interruption.Stoppable(lambda: ""):
        assert signal.getsignal(signal.SIGTERM) not in before
        with pytest.raises(interruption.Terminated):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert interruption.stoppable(lambda **_: "")(lambda x: x + 1)(x=2) == 3


def commands() -> list:
    """Return every verb, and the verbs of groups."""
    found = [main.get_command(None, verb) for verb in VERBS]
    return [inner for verb in found for inner in (verb.commands.values() if hasattr(verb, "commands") else [verb])]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_every_verb_says_what_is_kept(command, tmp_path):
    given = {parameter.name: str(tmp_path / "given") for parameter in command.params}
    line = command.callback.kept(**given)
    assert "repeat the command" in line and "\n" not in line
    outputs = {"out", "workdir", "dataset"} & set(given)
    assert not outputs or Path(given[outputs.pop()]).name in line or "nothing" in line or "no page" in line
