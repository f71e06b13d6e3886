"""Suites that others wrote, against the release build. `make conformance [ARGS="websocket tls slow browser oauth openai litellm webhooks schemathesis"]`.

A suite that can't be had here is skipped, and says why. The reports are left in build/conformance/reports. Exit status 1
when something failed.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

from suite import ROOT, Row, Skip  # first: it says where the others are

import browser_suite
import litellm_suite
import oauth_suite
import openai_suite
import schemathesis_suite
import slow_suite
import tls_suite
import webhook_suite
import websocket_suite
from certificate import Certificate
from load import Broken
from machine import Gateway, Serve, cores

SHOWN = 20  # failures of one row
SUITES = {"websocket": websocket_suite.run, "tls": tls_suite.run, "slow": slow_suite.run,
          "browser": browser_suite.run, "oauth": oauth_suite.run, "openai": openai_suite.run,
          "litellm": litellm_suite.run, "webhooks": webhook_suite.run, "schemathesis": schemathesis_suite.run}


class Bench:
    """What a suite gets: servers with the settings that it wants, folders, a certificate. One for each suite."""

    def __init__(self, program, folder, cache, options):
        self.program = program
        self.folder = folder
        self.cache = cache
        self.reports = os.path.join(cache, "reports")
        self.options = options
        self.cores = cores()[:2]
        self.servers = []
        os.makedirs(self.reports, exist_ok=True)

    def serve(self, settings):
        """A server on a port of its own; on the first core, the clients are for the other."""
        if not self.servers:
            self.servers.append(Gateway(self.program, os.path.join(self.folder, "data")))
        server = Serve(self.servers[0], os.path.join(self.folder, f"serve{len(self.servers)}"), settings, self.cores[0])
        self.servers.append(server)
        return server

    def certificate(self):
        return Certificate(os.path.join(self.folder, "certificate"))

    def close(self):
        while self.servers:
            self.servers.pop().close()


def run_suite(name, program, cache, options):
    """The suite's rows; that it broke is a failure, that it can't be had is not."""
    folder = tempfile.mkdtemp(prefix="wakegate-conformance-")
    os.chmod(folder, 0o711)  # PostgreSQL's user passes through it
    bench = Bench(program, folder, cache, options)
    try:
        return SUITES[name](bench)
    except Skip as skip:
        return [Row(name, "all", skipped=1, note=str(skip))]
    except Exception as error:
        if not isinstance(error, (Broken, RuntimeError, OSError, subprocess.SubprocessError)):
            traceback.print_exc()
        return [Row(name, "all", failures=[f"{type(error).__name__}: {error}"])]
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


def show(rows):
    line = "{:<14}  {:<28}  {:>6}  {:>6}  {:>7}  {}"
    print("\n" + line.format("suite", "what", "passed", "failed", "skipped", ""))
    for row in rows:
        print(line.format(row.suite, row.group, row.passed, len(row.failures), row.skipped, row.note).rstrip())
    for row in rows:
        for failure in row.failures[:SHOWN]:
            print(f"FAILED  {row.suite} {row.group}: {failure}")
        if len(row.failures) > SHOWN:
            print(f"FAILED  {row.suite} {row.group}: {len(row.failures) - SHOWN} more")
    passed, failed, skipped = (sum(each) for each in zip(*((row.passed, len(row.failures), row.skipped) for row in rows)))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes (compression)")
    parser.add_argument("--cases", metavar="1.*,2.1", help="cases of the WebSocket suite")
    parser.add_argument("--websocket-url", metavar="URL", help="test this echo server in place of the gateway")
    parser.add_argument("--tls-port", type=int, help="test what listens there for localhost in place of the gateway")
    parser.add_argument("--tls-authority", metavar="FILE", help="the CA of its certificate")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"some of: {' '.join(SUITES)}")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"there is no suite {' '.join(unknown)}")
    program = os.environ.get("WAKEGATE_BIN")
    if not program or not os.access(program, os.X_OK):
        parser.error("WAKEGATE_BIN must name the program: use `make conformance`")
    cache = os.environ.get("WAKEGATE_CONFORMANCE_DIR", os.path.join(ROOT, "build", "conformance"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = []
    for name in options.suites or SUITES:
        print(f"{name} ...", flush=True)
        rows += run_suite(name, program, cache, options)
    return 1 if show(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
