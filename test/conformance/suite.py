"""What all suites have in common: their rows, and how one says that it can't run."""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "bench"))  # servers, certificates and slow clients come from there


class Skip(Exception):
    """The suite, or a part of it, can't run here, and why."""


class Row:
    """A group of checks. `failures` are lines that say what has failed."""

    def __init__(self, suite, group, passed=0, failures=(), skipped=0, note=""):
        self.suite = suite
        self.group = group
        self.passed = passed
        self.failures = list(failures)
        self.skipped = skipped
        self.note = note


def run_tool(command, timeout_s, output=None, folder=None):
    """Runs a program to its end, in a folder if one is given. Its exit status (None when its time was up), and what it has
    written: to the file `output`, where that can be watched meanwhile, and here."""
    with open(output, "w+", encoding="utf-8") if output else tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        try:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=timeout_s,
                                    cwd=folder).returncode
        except FileNotFoundError:
            raise Skip(f"{command[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            status = None
        file.seek(0)
        return status, file.buffer.read().decode("utf-8", "replace")
