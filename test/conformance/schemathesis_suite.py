"""schemathesis: requests made up out of /openapi.json, fitting and not, and every answer held against it.

One run for each section of the description, with its credentials. The operator's comes last: what is made up there bans
accounts and revokes keys. The suite comes from PyPI, into a folder of its own.
"""
import os
import sys
import xml.etree.ElementTree

from suite import Row, Skip, run_tool  # first: it says where the others are

from load import Client
from machine import METRICS_TOKEN, Gateway

PACKAGE = "schemathesis==4.32.5"
LIMIT_S = 1200
SEED = "4"
EXAMPLES = {False: "40", True: "10"}  # of each operation, and with --quick
SETTINGS = {"REGISTER_RATE_PER_HOUR": "1000000000", "LOGIN_RATE_PER_MINUTE": "1000000000",
            "ADMIN_TOKEN": "conformance-only-token-of-the-operator-0123"}
# An Idempotency-Key that comes again is 422. Allow lists what fits a path, so for /session/create also what fits
# /session/{uuid}, and DELETE is no unknown method there. test/e2e/test_openapi_answers.py holds Allow against that.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = [200, 201, 202, 204, 303, 401, 403, 404, 409, 422, 429]
allow_header_conformance.enabled = false

[[operations]]
include-path = "/session/create"
checks.unsupported_method.enabled = false
"""
# Texts that only the server can tell from wrong ones: an e-mail address, scopes, the name of a plan.
UNTOLD = ["positive_data_acceptance"]
# OAuth's endpoints overlook what they do not know, and an empty parameter is none (RFC 6749 §3.2).
LENIENT = ["positive_data_acceptance", "negative_data_rejection"]
SECTIONS = (
    # Name, checks that its rules are too many words for.
    ("Sessions", []),
    ("Operations", []),
    ("Accounts and keys", UNTOLD),
    ("OAuth 2.0", LENIENT),
    ("Operator", UNTOLD),
)


def install(folder):
    """The program, in a virtual environment where pip is asked once."""
    target = os.path.join(folder, "schemathesis")
    program = os.path.join(target, "bin", "schemathesis")
    stamp = os.path.join(target, PACKAGE)
    if os.path.exists(stamp):
        return program
    if run_tool([sys.executable, "-m", "venv", "--clear", target], 120)[0]:
        raise Skip("python3-venv is not installed")
    status, said = run_tool([os.path.join(target, "bin", "python"), "-m", "pip", "install", "--quiet", PACKAGE], 600)
    if status is None:
        raise Skip(f"pip did not get {PACKAGE} in time")
    if status:
        raise Skip(f"pip can't install {PACKAGE}: {(said.strip().splitlines() or ['no reason given'])[-1]}")
    with open(stamp, "w", encoding="ascii"):
        return program


def credentials(gateway):
    """For each section, as options of schemathesis."""
    def key(surface):
        return gateway.admin("key", "create", "--account", "conformance", "--surface", surface)["key"]

    inference = key("inference")
    gateway.admin("plan", "set", "--account", "conformance", "--surface", "inference", "--plan", "enterprise")
    client = gateway.admin("client", "create", "--account", "conformance", "--name", "conformance",
                           "--redirect-uri", "http://127.0.0.1:9/callback")
    return {
        "Sessions": ["-H", f"X-API-Key: {gateway.key}"],
        "Operations": ["-H", f"Authorization: Bearer {METRICS_TOKEN}"],
        "Accounts and keys": ["-H", f"Authorization: Bearer {inference}"],
        "OAuth 2.0": ["-a", f"{client['client_id']}:{client['client_secret']}"],
        "Operator": ["-H", f"Authorization: Bearer {SETTINGS['ADMIN_TOKEN']}"],
    }


def read_report(section, path):
    """One check for each operation."""
    cases = list(xml.etree.ElementTree.parse(path).getroot().iter("testcase"))
    failures = []
    for case in cases:
        for kind in ("failure", "error"):
            failures += [f"{case.get('name')}: {' '.join((each.get('message') or each.text or '').split())[:400]}"
                         for each in case.iter(kind)]
    failed = {case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None}
    if not cases:
        failures.append("no operation was tested")
    return Row("schemathesis", section, len(cases) - len(failed), failures)


def test(bench, program, gateway, section, excluded, how):
    report = os.path.join(bench.reports, f"schemathesis-{section.split()[0].lower()}")
    config = os.path.join(bench.folder, "schemathesis.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG)
    if os.path.exists(report + ".xml"):
        os.unlink(report + ".xml")
    checks = ["--exclude-checks", ",".join(excluded)] if excluded else []
    status, said = run_tool(
        [program, "--config-file", config, "run", gateway.origin + "/openapi.json", "--include-tag", section, *how,
         *checks, "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES[bench.options.quick],
         "--seed", SEED, "--continue-on-failure", "--request-timeout", "60",
         "--report", "junit", "--report-junit-path", report + ".xml"],
        LIMIT_S, report + ".output", bench.folder)
    if status is None or not os.path.exists(report + ".xml"):
        raise RuntimeError(f"schemathesis failed: {said[-2000:]}")
    row = read_report(section, report + ".xml")
    if status and not row.failures:
        row.failures.append(f"schemathesis ended with {status}: {report}.output")
    return row


def end_sessions(gateway):
    """Those that were made up have pods too, which nobody else ends."""
    client = Client(gateway)
    while sessions := client.call("GET", "/session?limit=200")["sessions"]:
        gateway.sessions = [session["uuid"] for session in sessions]
        gateway.end_sessions()
    client.close()


def run(bench):
    program = install(bench.cache)
    gateway = Gateway(bench.program, os.path.join(bench.folder, "data"), SETTINGS)
    try:
        how = credentials(gateway)
        rows = []
        for section, excluded in SECTIONS:
            rows.append(test(bench, program, gateway, section, excluded, how[section]))
            if section == "Sessions":
                end_sessions(gateway)
        return rows
    finally:
        gateway.close()
