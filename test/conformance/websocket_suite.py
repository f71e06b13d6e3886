"""autobahntestsuite, the fuzzing client, against the echo that WAKEGATE_TEST_ENDPOINTS serves.

Every case has to be OK or INFORMATIONAL, and so has its close. The suite comes from PyPI, on top of Debian's
python3-autobahn; fuzzing_client.py runs it.
"""
import json
import os
import re
import sys

from suite import Row, Skip, run_tool

PACKAGE = "autobahntestsuite==25.10.1"
LIMIT_S = 3600
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
COMPRESSION = ("12", "13")
GROUPS = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation", "6": "UTF-8",
    "7": "close", "9": "limits, performance", "10": "fragmented by itself", "12": "compression, payloads",
    "13": "compression, parameters",
}
GOOD = ("OK", "INFORMATIONAL")
AGENT = "server"


def install(folder):
    """The suite in a folder of its own, where pip is asked once. Nothing that it needs but itself: that is Debian's."""
    if run_tool([sys.executable, "-c", "import autobahn.twisted.websocket"], 60)[0]:
        raise Skip("python3-autobahn is not installed")
    target = os.path.join(folder, "autobahntestsuite")
    if os.path.isdir(os.path.join(target, PACKAGE.replace("==", "-") + ".dist-info")):
        return target
    status, said = run_tool([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade",
                             "--target", target, PACKAGE], 300)
    if status is None:
        raise Skip(f"pip did not get {PACKAGE} in time")
    if status:
        raise Skip(f"pip can't install {PACKAGE}: {(said.strip().splitlines() or ['no reason given'])[-1]}")
    return target


def run_client(suite_folder, url, cases, reports):
    """The suite's index of results, case -> {behavior, behaviorClose, reportfile, …}; and how many cases it was to have."""
    os.makedirs(reports, exist_ok=True)
    spec = os.path.join(reports, "spec.json")
    with open(spec, "w", encoding="utf-8") as file:
        json.dump({"outdir": reports, "servers": [{"agent": AGENT, "url": url}], "cases": cases, "exclude-cases": []}, file)
    client = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuzzing_client.py")
    index = os.path.join(reports, "index.json")
    if os.path.exists(index):
        os.unlink(index)
    status, said = run_tool([sys.executable, "-B", "-u", client, suite_folder, spec], LIMIT_S, os.path.join(reports, "output"))
    if status is None:
        raise RuntimeError(f"the fuzzing client did not end in {LIMIT_S} s: {said.strip().splitlines()[-1]}")
    if status or not os.path.exists(index):
        raise RuntimeError(f"the fuzzing client failed:\n{said[-3000:]}")
    planned = re.search(r"will run (\d+) test cases", said)
    with open(index, encoding="utf-8") as file:
        return json.load(file).get(AGENT, {}), int(planned.group(1)) if planned else 0


def rows(suite, results, planned, reports):
    """One for each group of cases. When the server can't be reached any more the client ends as if it had run them all."""
    groups = {}
    for case, result in results.items():
        groups.setdefault(case.split(".")[0], []).append((case, result))
    found = [group_row(suite, number, groups[number], reports) for number in sorted(groups, key=int)]
    if not results or len(results) < planned:
        found.append(Row(suite, "all", failures=[f"{len(results)} of {planned} cases were run"]))
    return found


def group_row(suite, number, cases, reports):
    counts = {}
    failures = []
    for case, result in sorted(cases, key=lambda each: [int(part) for part in each[0].split(".")]):
        behaviour, close = result["behavior"], result["behaviorClose"]
        counts[behaviour] = counts.get(behaviour, 0) + 1
        if behaviour not in GOOD or close not in GOOD:
            page = os.path.join(reports, result["reportfile"].replace(".json", ".html"))
            failures.append(f"case {case}: {behaviour}, close {close} with {result['remoteCloseCode']}: {page}")
    note = ", ".join(f"{count} {behaviour}" for behaviour, count in sorted(counts.items()))
    return Row(suite, f"{number} {GROUPS.get(number, '')}", len(cases) - len(failures), failures, note=note)


def run(bench):
    suite_folder = install(bench.cache)
    cases = bench.options.cases.split(",") if bench.options.cases else list(CASES)
    if bench.options.quick:
        cases = [case for case in cases if case.split(".")[0] not in COMPRESSION]
    found = []
    for name, url in targets(bench):
        reports = os.path.join(bench.reports, name)
        # What TLS changes is how the bytes come, not what compression makes of them.
        some = [case for case in cases if name == "websocket" or case.split(".")[0] not in (*COMPRESSION, "9")]
        if some:
            results, planned = run_client(suite_folder, url, some, reports)
            found += rows(name, results, planned, reports)
    return found


def targets(bench):
    if bench.options.websocket_url:
        return [("websocket", bench.options.websocket_url)]
    plain = bench.serve({"WAKEGATE_TEST_ENDPOINTS": "1"})
    certificate = bench.certificate()
    secure = bench.serve({"WAKEGATE_TEST_ENDPOINTS": "1", **certificate.settings})
    return [("websocket", f"ws://127.0.0.1:{plain.port}/test/websocket"),
            ("websocket-tls", f"wss://127.0.0.1:{secure.port}/test/websocket")]
