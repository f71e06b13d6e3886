"""slowhttptest: 1000 connections that send or read slowly, and a normal client beside them.

The normal client's p99 may not grow beyond twice what it is without them (nor count below a millisecond: that is the
machine's noise), the server must answer all the time, and those that send too slowly have to be gone by the end.
"""
import shutil

from suite import Row, Skip  # first: it says where `slow` is

import slow

FLOOR_MS = 1.0
GROWTH = 2.0
# Short, so that the end is seen in half a minute.
SETTINGS = {"BODY_TIMEOUT_SECONDS": "10", "WRITE_TIMEOUT_SECONDS": "10", "WAKEGATE_TEST_ENDPOINTS": "1"}


def run(bench):
    if not shutil.which("slowhttptest"):
        raise Skip("slowhttptest is not installed")
    server = bench.serve(SETTINGS)
    return [row(attack, slow.measure(server, attack, bench.cores)) for attack in slow.ATTACKS]


def row(attack, figures):
    failures = []
    allowed = max(GROWTH * figures.alone_ms, FLOOR_MS)
    checks = (
        (figures.beside_ms <= allowed, f"p99 {figures.beside_ms:.2f} ms beside them, more than {allowed:.2f} ms"),
        (figures.available, "the server did not answer slowhttptest's own client"),
        (figures.failed == 0, f"{figures.failed} requests of the normal client failed"),
        (figures.most_open >= slow.CONNECTIONS * 9 // 10, f"only {figures.most_open} slow connections were open at once"),
        (not attack.must_end or figures.left == 0, f"{figures.left} slow connections are left"),
    )
    failures = [text for good, text in checks if not good]
    return Row("slow", attack.title, len(checks) - len(failures), failures,
               note=f"p99 {figures.alone_ms:.2f} ms alone, {figures.beside_ms:.2f} ms beside {figures.most_open} of them")
