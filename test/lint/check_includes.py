#!/usr/bin/python3
"""Checks which file includes which: `make lint` calls this with the compiler and its flags as arguments.

1. A room of the house includes only the rooms that architecture allows it (ROOMS).
2. A third-party header appears in one module only (THIRD_PARTY).
3. Our headers stand in quotes with their path from the root, everyone else's in angle brackets.
4. Every header is guarded and compiles alone.
5. No note that something is still to be done is left in the sources.
"""

import concurrent.futures
import os
import re
import subprocess
import sys

CORE = ["core/base", "core/run", "core/net", "core/store", "core/domain", "core/operator", "core/gate"]
BELOW_DOMAIN = ["core/base", "core/run", "core/store", "proto"]
# Room: what it may include beside itself. Who may include core/domain from above may include all rooms in it.
ROOMS = {
    "core/base": [],
    "core/run": ["core/base"],
    "proto": ["core/base"],
    "core/net": ["core/base", "core/run", "proto"],
    "core/store": ["core/base", "core/run", "proto"],
    "core/domain": BELOW_DOMAIN,
    "core/domain/identity": [*BELOW_DOMAIN, "core/domain"],
    "core/domain/money": [*BELOW_DOMAIN, "core/domain", "core/domain/identity"],
    "core/domain/event": [*BELOW_DOMAIN, "core/domain"],
    "core/domain/instance": [*BELOW_DOMAIN, "core/domain", "core/domain/identity", "core/domain/event"],
    "core/domain/ai": [*BELOW_DOMAIN, "core/domain", "core/domain/identity", "core/domain/money", "core/domain/event"],
    "core/operator": ["core/base", "core/run", "core/store", "core/domain", "proto"],
    "core/gate": [room for room in CORE if room != "core/operator"] + ["proto"],
    "handlers": [*CORE, "proto"],
    "workers": [room for room in CORE if room not in ("core/gate", "core/operator")] + ["proto"],
}
# The programs, core/*.c, put the rooms together; tests and measurements look at anything. No room includes these.
FREE = ("core", "test", "bench")

# Header (a folder ends with /): path prefixes of the files that may include it. Tests may include any.
THIRD_PARTY = {
    "uv.h": ["core/run/", "core/net/"],
    "llhttp.h": ["proto/http1"],
    "yyjson.h": ["proto/json"],
    "hiredis/": ["core/store/redis"],
    "hiredis.h": ["core/store/redis"],
    "libpq-fe.h": ["core/store/pg"],
    "postgresql/": ["core/store/pg"],
    "sodium.h": ["core/base/crypto"],
    "sodium/": ["core/base/crypto"],
    "curl/": ["core/net/fetch", "bench/fetches"],
    "mbedtls/gcm.h": ["core/base/crypto"],
    "mbedtls/sha1.h": ["core/base/crypto"],
    "mbedtls/": ["proto/tls"],
    "psa/": ["proto/tls"],
    "wslay/": ["proto/websocket"],
    "zlib.h": ["proto/websocket"],
    "boost/": ["core/run/fiber"],
}

SOURCE_ROOTS = ["core", "proto", "handlers", "workers", "test", "bench"]
NOTE_ROOTS = SOURCE_ROOTS + ["schema", "deploy"]
NOTE_SUFFIXES = (".c", ".h", ".py", ".sh", ".sql", ".lua", ".md", ".yaml", ".js", ".mjs")
# Put together here so that this file does not find itself.
NOTE = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]*)"|<([^>]*)>|(\S.*))')

problems = []


def problem(path, line, text):
    problems.append((path, line, text))


def walk(roots, suffixes):
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "node_modules"))
            for name in sorted(names):
                if name.endswith(suffixes):
                    yield os.path.join(folder, name)


def room_of(path):
    """core/base/str.c: core/base. core/main.c: core. handlers/session/chat.c: handlers/session."""
    parts = path.split("/")
    if parts[:2] == ["core", "domain"] and len(parts) > 3:
        return "/".join(parts[:3])
    if parts[0] in ("core", "handlers"):
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]
    return parts[0]


def check_direction(path, line, target):
    room, other = room_of(path), room_of(target)
    if room in FREE or room == other:
        return
    rule = "handlers" if room.startswith("handlers/") else room
    if rule not in ROOMS:
        problem(path, line, f"{room}/ is no room that test/lint/check_includes.py knows; see ROOMS")
        return
    allowed = ROOMS[rule]
    if other in allowed or other.startswith("core/domain/") and "core/domain" in allowed and not rule.startswith("core/domain"):
        return
    # handlers/routes.h and the like: what all surfaces share
    if rule == "handlers" and other == "handlers":
        return
    may = ", ".join(allowed) or "nothing of ours"
    problem(path, line, f'{room} may not include "{target}" ({other}); it may include {may}')


def check_third_party(path, line, target):
    if path.startswith("test/"):
        return
    named = [header for header in THIRD_PARTY if target == header or header[-1] == "/" and target.startswith(header)]
    places = THIRD_PARTY[max(named, key=len)] if named else [""]
    if not path.startswith(tuple(places)):
        problem(path, line, f"<{target}> belongs to {' and '.join(place + '*' for place in places)} alone")


def without_comments(text):
    """The text with comments blanked, lines kept; string literals are left as they are."""
    pattern = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/'

    def blank(match):
        found = match.group(0)
        return "\n" * found.count("\n") + " " if found.startswith("/") else found

    return re.sub(pattern, blank, text, flags=re.DOTALL)


def check_includes(path, text):
    for line, content in enumerate(without_comments(text).split("\n"), 1):
        match = INCLUDE.match(content)
        if not match:
            continue
        quoted, angled, computed = match.groups()
        if computed is not None:
            problem(path, line, "an include names its file itself, no macro")
        elif quoted is not None:
            if quoted.startswith(("./", "../")) or not os.path.exists(quoted):
                ours = "does not exist" if "/" in quoted else "is not a path from the root"
                problem(path, line, f'"{quoted}" {ours}; quotes are for our own files, with their path from the root')
            else:
                check_direction(path, line, quoted)
        else:
            if os.path.exists(angled):
                problem(path, line, f'<{angled}> is ours: write "{angled}"')
            check_third_party(path, line, angled)


def check_guard(path, text):
    lines = [content.strip() for content in without_comments(text).split("\n")]
    lines = [content for content in lines if content]
    first = re.match(r"#\s*ifndef\s+(\w+)$", lines[0]) if lines else None
    second = re.match(r"#\s*define\s+(\w+)$", lines[1]) if len(lines) > 1 else None
    if not (first and second and first.group(1) == second.group(1) and re.match(r"#\s*endif\b", lines[-1])):
        problem(path, 1, "no include guard around the whole header (#ifndef NAME, #define NAME ... #endif)")


def check_notes(path, text):
    for line, content in enumerate(text.split("\n"), 1):
        match = NOTE.search(content)
        if match:
            problem(path, line, f"{match.group(0)}: do it, or say what is so and why")


def check_alone(compiler, path):
    """Included twice with nothing before it: what is missing, or not guarded, does not compile."""
    source = f'#include "{path}"\n#include "{path}"\nextern int header_stands_alone;\n'
    result = subprocess.run(
        [*compiler, "-fsyntax-only", "-x", "c", "-"], input=source, capture_output=True, text=True, check=False
    )
    return path, result.returncode, result.stderr.strip()


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    for path in walk(SOURCE_ROOTS, (".c", ".h")):
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        check_includes(path, text)
        if path.endswith(".h"):
            check_guard(path, text)
    for path in walk(NOTE_ROOTS, NOTE_SUFFIXES):
        with open(path, encoding="utf-8", errors="replace") as file:
            check_notes(path, file.read())

    compiler = sys.argv[1:]
    if compiler:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            headers = list(walk(SOURCE_ROOTS, (".h",)))
            for path, status, output in pool.map(lambda header: check_alone(compiler, header), headers):
                if status != 0:
                    problem(path, 1, "does not compile alone:\n    " + output.replace("\n", "\n    "))

    for path, line, text in sorted(problems):
        print(f"{path}:{line}: {text}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problem(s)", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
