"""Bars in a log: whole lines, one after the other, without codes that move a cursor."""

import io
import subprocess
import sys
import time

from durian_jax import progress
from durian_jax.progress import clock, is_log, progress_bar, say

NESTED = """
import sys
from durian_jax.progress import progress_bar, say
for _ in progress_bar(range(2), desc="jobs", log_seconds=0):
    with progress_bar(total=2, desc="frames", log_seconds=0, leave=False) as bar:
        bar.update()
        say("durian: a note")
        bar.update()
"""


def test_nested_bars_write_whole_lines_into_a_log():
    log = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, check=True).stderr.decode()
    assert "\r" not in log and "\x1b" not in log and log.endswith("\n")
    lines = log.splitlines()
    assert all(line.startswith(("jobs: ", "frames: ", "durian: a note")) for line in lines)
    assert lines.count("durian: a note") == 2 and lines[-1].startswith("jobs: 100%") and "2/2" in lines[-1]


def test_a_notebook_draws_bars_and_a_log_does_not(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert not is_log()  # a notebook replaces sys.stderr
    assert is_log(io.StringIO())
    monkeypatch.setattr(sys, "__stderr__", log)
    assert is_log()
    with progress_bar(total=2, desc="stage 1", log_seconds=0) as bar:
        bar.update(2)
    say("end")
    lines = log.getvalue().splitlines()
    assert "2/2" in lines[-2] and lines[-1] == "end" and "\r" not in log.getvalue()


def test_a_clock_shows_the_time_of_long_work_only(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(sys, "__stderr__", log)
    with clock("waiting", log_seconds=0):
        pass
    assert log.getvalue() == ""
    monkeypatch.setattr(progress, "SHORT", 0.1)
    for shown in (False, True):
        with clock("tracing", shown, log_seconds=0) as describe:
            describe("compiling")
            time.sleep(1.2)
    lines = log.getvalue().splitlines()
    assert lines and all(line.startswith("compiling, 00:0") for line in lines)
