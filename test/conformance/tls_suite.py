"""testssl.sh against a listener with TLS: nothing above severity LOW.

The certificate is one that a CA made for this run has signed, and testssl.sh trusts that CA, so that what it says of chain,
names, dates and revocation is about a certificate as an operator would have it. What the HTTP headers behind it say is not
asked for: an API's are its contract's.
"""
import json
import os

from suite import Row, Skip, run_tool

LIMIT_S = 900
# The tests of a run without options, but for the HTTP headers.
TESTS = ("--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable", "--client-simulation")
GOOD = ("OK", "INFO", "LOW")
# It could not test something: because of the client's OpenSSL, never of the server.
UNTESTED = ("WARN", "DEBUG")
# LOW to it, and too much for us.
REFUSED = ("SSLv2", "SSLv3", "TLS1", "TLS1_1")
IGNORED = ("engine_problem",)  # the client's OpenSSL lacks GOST


def command():
    for name in ("testssl", "testssl.sh"):
        for folder in os.environ.get("PATH", "").split(":"):
            if os.access(os.path.join(folder, name), os.X_OK):
                return name
    raise Skip("testssl.sh is not installed")


def scan(bench, port, authority):
    path = os.path.join(bench.reports, "testssl.json")
    if os.path.exists(path):
        os.unlink(path)
    status, said = run_tool([command(), "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", "--ip",
                             "127.0.0.1", "--add-ca", authority, "--jsonfile", path, *TESTS, f"localhost:{port}"], LIMIT_S)
    if status is None:
        raise RuntimeError(f"testssl.sh did not end in {LIMIT_S} s")
    try:
        with open(path, encoding="utf-8") as file:
            return [finding for finding in json.load(file) if finding["id"] not in IGNORED]
    except (OSError, ValueError):
        raise RuntimeError(f"testssl.sh wrote no findings: {said[-2000:]}") from None


def run(bench):
    command()
    certificate = bench.certificate()
    port = bench.options.tls_port or bench.serve(certificate.settings).port
    findings = scan(bench, port, bench.options.tls_authority or certificate.authority)
    passed = [each for each in findings if each["severity"] in GOOD
              and not (each["severity"] == "LOW" and each["id"] in REFUSED)]
    untested = [each for each in findings if each["severity"] in UNTESTED]
    failures = [f"{each['severity']} {each['id']}: {each['finding']}" for each in findings
                if each not in passed and each not in untested]
    if not passed:
        failures.append("testssl.sh found nothing out")
    notes = [f"{each['severity']}: {each['id']}" for each in findings if each["severity"] in ("LOW", *UNTESTED)]
    return [Row("tls", "testssl.sh", len(passed), failures, len(untested), ", ".join(notes))]
