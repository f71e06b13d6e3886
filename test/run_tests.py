#!/usr/bin/python3
"""Runs the tests and counts them: the phases named on the command line, then one line "N passed, N failed".

lint   `make lint`; adds nothing when it passes, one failure when not
unit   builds and runs every test/unit/**/NAME_test.c; each cmocka case counts
fuzz   replays the corpus of every test/fuzz/NAME.c, then fuzzes it for --seconds; each of the two counts
e2e    pytest over test/e2e, with the binary's path in WAKEGATE_BIN
fault  the same over test/fault

The last two spend most of their time waiting: asked for together they are one run of pytest, and the others work beside it,
with what it leaves of the processors. What each says is shown in that order all the same.

Usually started by `make test`, `make unit`, `make fuzz`, `make e2e` or `make fault`.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import xml.etree.ElementTree as ElementTree

# Tests wait for most of their time: more workers than processors.
PYTEST_WORKERS = max(4, 3 * (os.cpu_count() or 1))
FEW_WORKERS = 3  # for a single file: each makes a gateway of its own for it
# Of what builds beside tests that look at the clock.
BESIDE_NICE = 10
MEMORY = "/dev/shm"
MEMORY_ROOM = 4 << 30  # bytes
UNIT_TIMEOUT_S = 120
PYTEST_CASE_TIMEOUT_S = 180
FUZZ_PARALLEL = 2
# What an input has freed is of no interest to the next ones; by default it would be kept until it is 256 MB.
FUZZ_QUARANTINE_MB = 16
FUZZ_OUTPUT_SHOWN = 8000
FUZZ_INPUT_SHOWN = 512
# Larger inputs are in the corpora, for a head's bound; to look for more of them costs more than it finds.
FUZZ_OPTIONS = ["-max_len=16384", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]
# Everything together. A run that hangs must still end, and say so, while somebody waits for it.
DEADLINE_S = int(os.environ.get("WAKEGATE_TEST_DEADLINE_S", "3000"))
# Room kept for a phase that was stopped to say what it knows.
GRACE_S = 10

# cmocka's report. Its summary names failed and skipped cases again, without a RUN before them.
CASE = re.compile(r"\[ +(RUN|OK|FAILED|SKIPPED) +\] (\S+)")


class Counts:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()

    def add(self, passed=0, failed=0, skipped=0):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped

    def __str__(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Runner:
    def __init__(self, options):
        self.make = shlex.split(options.make)
        self.out = options.out
        self.only = options.only
        self.seconds = options.seconds
        self.counts = Counts()
        self.reports = os.path.abspath(os.path.join(self.out, "sanitizer"))
        self.ends_at = time.monotonic() + DEADLINE_S
        self.running = set()
        self.memory = make_memory()
        self.beside = False  # another phase is at work

    def remaining_s(self):
        return max(1.0, self.ends_at - time.monotonic())

    def say(self, text):
        print(text, flush=True)

    def run(self, command, env=None, timeout_s=None, **output):
        """Runs a command in a session of its own; returns its exit status, None when its time was up, and its output."""
        # A make that we start may share the jobs of the make that started us, through descriptors.
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False, **output
        )
        self.running.add(process)
        try:
            text, _ = process.communicate(timeout=min(timeout_s or DEADLINE_S, self.remaining_s()))
            return process.returncode, text
        except subprocess.TimeoutExpired:
            return None, end_group(process)
        finally:
            self.running.discard(process)

    def stop(self, number, _frame):
        """Told to stop: what runs is in sessions of its own and has not heard it."""
        for process in list(self.running):
            signal_group(process, signal.SIGKILL)
        self.drop_memory()
        os._exit(128 + number)

    def environment(self, reports):
        """With a folder for reports, sanitizers write there: a fault in a process whose output no test reads counts."""
        log = f":log_path={reports}/report" if reports else ""
        env = dict(os.environ)
        defaults = {
            "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
            "LSAN_OPTIONS": "report_objects=1",
        }
        for name, value in defaults.items():
            env[name] = ":".join(filter(None, [value, os.environ.get(name)])) + log
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        if self.memory:
            env["WAKEGATE_TEST_MEMORY"] = self.memory
        return env

    def behind(self):
        """What a command begins with that leaves the processors to pytest."""
        return ["nice", "-n", str(BESIDE_NICE)] if self.beside else []

    def build(self, targets):
        status, _ = self.run([*self.behind(), *self.make, *targets])
        if status == 0:
            return True
        self.say(f"FAILED  build of {' '.join(targets[:3])}{' ...' if len(targets) > 3 else ''}")
        self.counts.add(failed=1)
        return False

    # ---- phases ----

    def lint(self):
        status, _ = self.run([*self.behind(), *self.make, "lint"])
        self.say("ok      lint" if status == 0 else "FAILED  lint")
        if status != 0:
            self.counts.add(failed=1)

    def unit(self):
        names = sorted(
            os.path.relpath(path, "test/unit")[: -len("_test.c")]
            for path in glob.glob("test/unit/**/*_test.c", recursive=True)
        )
        if self.only:
            only = re.sub(r"^test/unit/|(_test)?(\.c)?/?$", "", self.only)
            names = [name for name in names if name == only or name.startswith(only + "/")]
            if not names:
                self.say(f"no test/unit/{only}_test.c and no tests in test/unit/{only}/")
                self.counts.add(failed=1)
                return
        if not names:
            return
        programs = {name: os.path.join(self.out, "test", name + "_test") for name in names}
        if not self.build(["-k", *programs.values()]):
            return
        env = self.environment(None)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for text, counts in pool.map(lambda name: self.unit_program(name, programs[name], env), names):
                self.say(text)
                self.counts.add(**counts)

    def unit_program(self, name, program, env):
        begin = time.monotonic()
        status, output = self.run(
            [os.path.abspath(program)],
            env=env,
            timeout_s=UNIT_TIMEOUT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seconds = time.monotonic() - begin
        output = (output or b"").decode(errors="replace")
        started, passed, skipped = count_cases(output)
        failed = started - passed - skipped
        # A crash after the last case, a leak found at exit, a failed group fixture: no case of its own failed.
        if status != 0 and failed == 0:
            failed = 1
        if status is None:
            output += f"\nstopped after {seconds:.0f} s\n"
        if status == 0 and started == 0:
            output += "\nran no test case\n"
            failed = 1
        counts = {"passed": passed, "failed": failed, "skipped": skipped}
        if not failed:
            return f"ok      {name}: {passed} passed{f', {skipped} skipped' if skipped else ''} ({seconds:.2f} s)", counts
        how = "out of time" if status is None else f"signal {-status}" if status < 0 else f"exit {status}"
        return f"{output.rstrip()}\nFAILED  {name}: {passed} passed, {failed} failed ({how})", counts

    def fuzz(self):
        folder = os.path.join(os.path.dirname(self.out), "fuzz")
        names = sorted(os.path.basename(path)[:-2] for path in glob.glob("test/fuzz/*.c"))
        names = [name for name in names if name != "support" and self.only in ("", name)]
        if not names:
            self.say(f"no test/fuzz/{self.only}.c")
            self.counts.add(failed=1)
            return
        if not self.build(["-k", *(os.path.join(folder, "bin", name) for name in names)]):
            return
        # Beside tests one after the other, and for longer: each has what is left of one processor.
        with concurrent.futures.ThreadPoolExecutor(1 if self.beside else FUZZ_PARALLEL) as pool:
            for text, counts in pool.map(lambda name: self.fuzz_target(name, folder), names):
                self.say(text)
                self.counts.add(**counts)

    def fuzz_target(self, name, folder):
        """Replays the corpus, and if that went well looks for inputs that it lacks. These stay out of the tree."""
        program = os.path.join(folder, "bin", name)
        seeds = sorted(glob.glob(f"test/fuzz/corpus/{name}/*"))
        status, output = self.fuzz_run([program, *FUZZ_OPTIONS, *seeds], 60)
        if status != 0 or not seeds:
            inputs = re.findall(r"^Running: (.*)$", output, re.MULTILINE)[-1:]
            return f"{fuzz_failure(output, program, inputs)}\nFAILED  fuzz {name}: replay", {"failed": 1}
        if not self.seconds:
            return f"ok      fuzz {name}: {len(seeds)} seeds replayed", {"passed": 1}
        fresh, found = os.path.join(folder, name), os.path.join(folder, "found", name)
        for path in (fresh, found):
            os.makedirs(path, exist_ok=True)
        words = [f"-dict=test/fuzz/{name}.dict"] if os.path.exists(f"test/fuzz/{name}.dict") else []
        status, output = self.fuzz_run(
            [program, *FUZZ_OPTIONS, *words, f"-max_total_time={self.seconds}", f"-artifact_prefix={found}/",
             fresh, f"test/fuzz/corpus/{name}"],
            self.seconds + 60,
        )
        runs = re.search(r"^stat::number_of_executed_units: (\d+)$", output, re.MULTILINE)
        if status != 0 or not runs:
            inputs = re.findall(r"Test unit written to (.*)$", output, re.MULTILINE)
            return f"{fuzz_failure(output, program, inputs)}\nFAILED  fuzz {name}", {"passed": 1, "failed": 1}
        return f"ok      fuzz {name}: {len(seeds)} seeds, {runs.group(1)} runs in {self.seconds} s", {"passed": 2}

    def fuzz_run(self, command, timeout_s):
        env = self.environment(None)
        env["ASAN_OPTIONS"] += f":quarantine_size_mb={FUZZ_QUARANTINE_MB}"
        status, output = self.run(
            command,
            env=env,
            timeout_s=timeout_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return status, (output or b"").decode(errors="replace")

    def pytest(self, folders, output=None):
        """One run over all these folders, its output into that file. Its exit status, None when it took too long."""
        junit = os.path.abspath(os.path.join(self.out, "+".join(folders).replace("/", "-") + ".xml"))
        shutil.rmtree(self.reports, ignore_errors=True)
        os.makedirs(self.reports)
        # a process under test may run as somebody else
        os.chmod(self.reports, 0o1777)
        if os.path.exists(junit):
            os.unlink(junit)
        env = self.environment(self.reports)
        env["WAKEGATE_BIN"] = os.path.abspath(self.program())
        targets = folders
        if self.only:
            targets = [self.only if self.only.startswith(folder) else os.path.join(folder, self.only) for folder in folders]
        # One chosen test is watched: no workers, its output shown.
        how = ["-s"] if "::" in targets[0] else ["-n", str(FEW_WORKERS if self.only else PYTEST_WORKERS)]
        status, _ = self.run(
            [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *how,
             "-o", f"timeout={PYTEST_CASE_TIMEOUT_S}", f"--junitxml={junit}", *targets],
            env=env, stdout=output, stderr=output,
        )
        counts = read_junit(junit)
        # 5: pytest found no test, which is none, unless one was asked for
        if status != 0 and counts["failed"] == 0 and (status != 5 or self.only):
            counts["failed"] = 1
        self.counts.add(**counts)
        return status

    def drop_memory(self):
        if self.memory:
            shutil.rmtree(self.memory, ignore_errors=True)

    def program(self):
        return os.path.join(self.out, "wakegate")

    def end_pytest(self, folders, status):
        name = " ".join(folders)
        if status is None:
            self.say(f"FAILED  {name}: out of time")
        self.show_reports(name)

    def show_reports(self, folder):
        reports = sorted(glob.glob(os.path.join(self.reports, "report*")))
        for path in reports:
            with open(path, errors="replace") as file:
                self.say(f"---- {os.path.basename(path)}\n{file.read().rstrip()}")
        if reports:
            self.say(f"FAILED  {folder}: {len(reports)} sanitizer report(s), above")
            self.counts.add(failed=len(reports))


def make_memory():
    """A folder for the files of the PostgreSQLs that tests start: on a disk's file system making and deleting them takes longer
    than all that is done with them. None where there is too little memory for that."""
    if not os.access(MEMORY, os.W_OK):
        return None
    room = os.statvfs(MEMORY)
    if room.f_bavail * room.f_frsize < MEMORY_ROOM or room.f_flag & os.ST_NOEXEC:
        return None
    folder = tempfile.mkdtemp(prefix="wg-", dir=MEMORY)
    os.chmod(folder, 0o711)
    return folder


def count_cases(output):
    """How many cases started, passed and were skipped. One that started and did not say how it ended has failed."""
    counts = {"RUN": 0, "OK": 0, "SKIPPED": 0, "FAILED": 0}
    running = None
    for kind, name in CASE.findall(output):
        if kind == "RUN":
            counts[kind] += 1
            running = name
        elif name == running:
            counts[kind] += 1
            running = None
    return counts["RUN"], counts["OK"], counts["SKIPPED"]


def fuzz_failure(output, program, inputs):
    """The end of what the program said, and for each input that it failed at: the command that shows it again."""
    lines = [output[-FUZZ_OUTPUT_SHOWN:].rstrip()]
    for path in inputs:
        with open(path, "rb") as file:
            content = file.read()
        lines.append(f"{len(content)} bytes, {content[:FUZZ_INPUT_SHOWN].hex()}{'...' * (len(content) > FUZZ_INPUT_SHOWN)}")
        lines.append(f"again: {program} {path}")
    return "\n".join(lines)


def signal_group(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def end_group(process):
    """Ends a process and what it started; returns its output. An interrupt first: pytest then writes what it counted."""
    for number in (signal.SIGINT, signal.SIGKILL):
        signal_group(process, number)
        try:
            return process.communicate(timeout=GRACE_S)[0]
        except subprocess.TimeoutExpired:
            continue
    return None


def read_junit(path):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return counts
    for case in root.iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[kind] += 1
    return counts


def run_phases(runner, names):
    short = {"lint": runner.lint, "unit": runner.unit, "fuzz": runner.fuzz}
    folders = [f"test/{name}" for name in names if name not in short]
    names = [name for name in names if name in short]
    # What more than one of them is made of is built before two of them build.
    if folders and not guarded(runner, "build", lambda: runner.build([runner.program()])):
        folders = []
    if not folders or not names:
        for name in names:
            guarded(runner, name, short[name])
        if folders:
            runner.end_pytest(folders, guarded(runner, "pytest", lambda: runner.pytest(folders)))
        return
    with open(os.path.join(runner.out, "pytest.log"), "w+b") as log:
        statuses = []
        runner.beside = True
        thread = threading.Thread(
            target=lambda: statuses.append(guarded(runner, "pytest", lambda: runner.pytest(folders, log)))
        )
        thread.start()
        for name in names:
            guarded(runner, name, short[name])
        follow(log.name, thread)
        runner.end_pytest(folders, statuses[0])


def guarded(runner, name, phase):
    """What the phase returns; one that can't go on has failed, and the others go on."""
    try:
        return phase()
    except Exception:
        runner.say(f"{traceback.format_exc()}FAILED  {name}")
        runner.counts.add(failed=1)
        return False


def follow(path, thread):
    """Shows what is in the file and what comes, until the thread ends."""
    with open(path, "rb") as file:
        while True:
            last = not thread.is_alive()
            sys.stdout.buffer.write(file.read())
            sys.stdout.buffer.flush()
            if last:
                return
            thread.join(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="+", choices=["lint", "unit", "fuzz", "e2e", "fault"])
    parser.add_argument("--make", default="make BUILD=asan", help="the make command that builds, with its variables")
    parser.add_argument("--out", default="build/asan", help="the folder that it builds into")
    parser.add_argument("--only", default="", help="one test file or test")
    parser.add_argument("--seconds", type=int, default=8, help="how long each target is fuzzed; 0: replay alone")
    options = parser.parse_args()
    runner = Runner(options)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, runner.stop)
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    try:
        run_phases(runner, options.phases)
    finally:
        runner.drop_memory()
    runner.say(str(runner.counts))
    return 1 if runner.counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
