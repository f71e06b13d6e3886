#!/usr/bin/python3
"""Makes of openapi.yaml what is served: openapi.json, docs.html, and docs.csp, the page's Content-Security-Policy.

    schema/openapi.py schema/openapi.yaml FOLDER

The page is static HTML of our own making and has no script: navigation and folding are HTML's own. Debian packages no
renderer (no Swagger UI, Redoc or RapiDoc), and `make run` installs nothing but Debian packages. What a renderer would
add, calling the API out of the page, would need script and a policy that lets it run and connect.

Top-level members whose names begin with "x-" are pieces that the YAML uses again, and no part of the document.
Descriptions may hold paragraphs, lists ("- "), indented code, `code` and [links](#anchor): CommonMark, of which no more
is rendered here.
"""
import base64
import hashlib
import html
import json
import os
import re
import sys

import yaml

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

# One column on a phone, a column of navigation beside it where there is room. Colours follow the reader's setting.
STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--paper:#fff;--soft:#5a6270;--line:#d8dce2;--code:#f3f4f6;--link:#0b57b0;
--get:#0b6b3a;--post:#0b57b0;--delete:#a8201a}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--paper:#14171a;--soft:#a3abb8;--line:#343a42;--code:#1f2429;
--link:#7db4ff;--get:#6fd39c;--post:#7db4ff;--delete:#ff9a92}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0;font:1rem/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);overflow-wrap:break-word}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,pre:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:1rem;padding:.5rem;background:var(--paper)}
nav{padding:1rem;border-bottom:1px solid var(--line)}
nav ul{list-style:none;margin:0;padding:0 0 .5rem .75rem;font-size:.9rem}
nav a{display:block;padding:.2rem 0;text-decoration:none}
nav a:hover{text-decoration:underline}
nav summary{padding:.3rem 0;font-weight:600}
main{padding:1rem;max-width:56rem}
h1,h2,h3,h4{line-height:1.25;margin:1.5rem 0 .5rem}
h1{margin-top:0}
h2{border-top:2px solid var(--line);padding-top:1.5rem}
h3{font-size:1.1rem}
h4{font-size:.95rem;color:var(--soft)}
article{border-top:1px solid var(--line);padding:.25rem 0 1rem}
article:target{border-left:4px solid var(--link);padding-left:.75rem}
code,pre{font:.9em/1.5 ui-monospace,monospace}
code{background:var(--code);padding:.1em .25em;border-radius:3px}
pre{background:var(--code);padding:.75rem;border-radius:4px;overflow-x:auto;margin:.5rem 0}
pre code{padding:0}
.method{font:700 .85em ui-monospace,monospace;color:var(--post)}
.get{color:var(--get)}
.delete{color:var(--delete)}
.type,.note{color:var(--soft);font-size:.9rem}
dl{margin:.25rem 0;padding-left:.75rem;border-left:2px solid var(--line)}
dt{margin-top:.4rem}
dd{margin:0 0 0 1rem}
dd p,li p{margin:.1rem 0}
details{margin:.35rem 0}
summary{cursor:pointer;padding:.15rem 0}
@media(min-width:64rem){
body{display:grid;grid-template-columns:20rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow-y:auto;border:0;border-right:1px solid var(--line)}
main{padding:1.5rem 2.5rem}
}
"""


def load(path):
    """The document that the YAML describes."""
    with open(path, encoding="utf-8") as file:
        whole = yaml.safe_load(file)
    return {name: value for name, value in whole.items() if not name.startswith("x-")}


# ---- HTML ----

def text(value):
    return html.escape(str(value), quote=True)


def code(value):
    return f"<code>{text(value)}</code>"


def verb(method):
    return f'<span class="method {method}">{method.upper()}</span>'


def inline(source):
    done = re.sub(r"`([^`]+)`", r"<code>\1</code>", text(source))
    return re.sub(r"\[([^\]]+)\]\(([#/][^)\s]*)\)", r'<a href="\2">\1</a>', done)


def block(source):
    lines = source.split("\n")
    if all(line.startswith("    ") for line in lines):
        return sample("\n".join(line[4:] for line in lines))
    if lines[0].startswith("- "):
        items = re.split(r"^- ", source, flags=re.MULTILINE)[1:]
        return "<ul>" + "".join(f"<li>{inline(item.strip())}</li>" for item in items) + "</ul>\n"
    return f"<p>{inline(source)}</p>\n"


def prose(source):
    return "".join(block(part.rstrip()) for part in re.split(r"\n\s*\n", source or "") if part.strip())


def sample(source):
    """May be wider than the screen: a keyboard can scroll what it can reach."""
    return f'<pre tabindex="0"><code>{text(source)}</code></pre>\n'


def shown(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


# ---- schemas ----

LIMITS = (
    ("minLength", "at least {} characters"), ("maxLength", "at most {} characters"), ("minimum", "from {}"),
    ("maximum", "to {}"), ("minItems", "at least {} items"), ("maxItems", "at most {} items"),
    ("default", "default {}"), ("pattern", "pattern {}"),
)


class Page:
    def __init__(self, spec):
        self.spec = spec

    def resolve(self, value):
        while isinstance(value, dict) and "$ref" in value:
            target = self.spec
            for part in value["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            value = {**target, **{name: own for name, own in value.items() if name != "$ref"}}
        return value

    def type_of(self, schema):
        """A few words: "string or null, one of a, b"."""
        schema = self.resolve(schema)
        if "const" in schema:
            return json.dumps(schema["const"])
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return " or ".join(dict.fromkeys(self.type_of(each) for each in schema[choice]))
        kinds = schema.get("type", "any value")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        words = []
        for kind in kinds:
            if kind == "array" and "items" in schema:
                kind = f"array of {self.type_of(schema['items'])}"
            elif kind == "string" and "format" in schema:
                kind = f"string ({schema['format']})"
            words.append(kind)
        said = " or ".join(words)
        if "enum" in schema:
            said += ": " + ", ".join(json.dumps(each) for each in schema["enum"])
        return said

    def limits(self, schema):
        return ", ".join(words.format(schema[name]) for name, words in LIMITS if name in schema)

    def members(self, schema):
        """(name, schema, required) of an object, over allOf; of an array those of its items."""
        schema = self.resolve(schema)
        if "items" in schema:
            return self.members(schema["items"])
        found = []
        for part in schema.get("allOf", ()):
            found += self.members(part)
        for choice in ("oneOf", "anyOf"):
            for part in schema.get(choice, ()):
                found += [each for each in self.members(part) if each[0] not in [have[0] for have in found]]
        required = schema.get("required", ())
        return found + [(name, value, name in required) for name, value in schema.get("properties", {}).items()]

    def fields(self, schema, depth=0):
        rows = ""
        for name, value, required in self.members(schema) if depth < 6 else ():
            value = self.resolve(value)
            rows += self.field(name, value, required, self.fields(value, depth + 1))
        return f"<dl>{rows}</dl>\n" if rows else ""

    def field(self, name, schema, required, more="", description=None):
        words = [self.type_of(schema)]
        words += ["required"] if required else []
        words += [self.limits(schema)] if self.limits(schema) else []
        said = prose(description or schema.get("description"))
        return f'<dt>{code(name)} <span class="type">{text(", ".join(words))}</span></dt>\n<dd>{said}{more}</dd>\n'

    # ---- operations ----

    def parameters(self, operation):
        rows = ""
        for parameter in map(self.resolve, operation.get("parameters", ())):
            schema = self.resolve(parameter["schema"])
            rows += self.field(parameter["name"], schema, parameter.get("required"),
                               f'<p class="note">in the {text(parameter["in"])}</p>', parameter.get("description"))
        return f"<h4>Parameters</h4>\n<dl>{rows}</dl>\n" if rows else ""

    def contents(self, holder):
        """The bodies of a request or an answer, one for each media type; what is like the one before is not told."""
        done = ""
        before = None
        for kind, media in holder.get("content", {}).items():
            schema = media.get("schema", {})
            done += f'<p class="note">{code(kind)}: {text(self.type_of(schema))}</p>\n'
            if schema != before:
                done += self.fields(schema)
            if "example" in media:
                done += sample(shown(media["example"]))
            before = schema
        return done

    def answer(self, status, response):
        """An error that several operations share is told once, in a section of its own."""
        if "$ref" in response and "/responses/" in response["$ref"]:
            name = response["$ref"].rpartition("/")[2]
            said = inline(self.resolve(response)["description"].strip().split("\n")[0])
            return f'<li><a href="#answer-{text(name)}">{text(status)}</a> {said}</li>\n'
        response = self.resolve(response)
        first, _, rest = response["description"].strip().partition("\n\n")
        return (f"<li><details open><summary>{code(status)} {inline(first)}</summary>\n{prose(rest)}"
                f"{self.contents(response)}{self.header_fields(response)}</details></li>\n")

    def header_fields(self, response):
        rows = ""
        for name, header in response.get("headers", {}).items():
            header = self.resolve(header)
            rows += self.field(name, self.resolve(header["schema"]), False, "", header.get("description"))
        return f"<details><summary>Header fields</summary><dl>{rows}</dl></details>\n" if rows else ""

    def access(self, operation):
        ways = []
        for way in operation.get("security", self.spec.get("security", [])):
            for name, scopes in way.items():
                scheme = self.resolve(self.spec["components"]["securitySchemes"][name])
                ways.append(f'<a href="#access-{text(name)}">{text(scheme.get("x-name", name))}</a>' +
                            (" with " + " ".join(code(scope) for scope in scopes) if scopes else ""))
            if not way:
                ways.append("the same in the body")
        return "<p>Needs " + ", or ".join(ways) + ".</p>\n" if ways else "<p>Open to everyone.</p>\n"

    def call(self, method, path, operation):
        """The call as a line for a shell."""
        for parameter in map(self.resolve, operation.get("parameters", ())):
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", str(parameter.get("example", "…")))
        words = ["curl" + ("" if method == "get" else f" -X {method.upper()}") + f" 'http://localhost:8080{path}'"]
        security = operation.get("security", [])
        if security and security[0]:
            words.append(self.spec["components"]["securitySchemes"][next(iter(security[0]))].get("x-curl", ""))
        for kind, media in self.resolve(operation.get("requestBody", {})).get("content", {}).items():
            given = media.get("example", {})
            if kind == "application/json":
                words += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(given, ensure_ascii=False)}'"]
            else:
                words += [f"--data-urlencode '{name}={value}'" for name, value in given.items()]
            break
        return sample(" \\\n  ".join(word for word in words if word))

    def operation(self, path, method, operation):
        head = (f'<article id="{text(operation["operationId"])}">\n<h3>{verb(method)} {code(path)}</h3>\n'
                f'<p>{inline(operation["summary"])}</p>\n')
        if "x-same-as" in operation:
            other = operation["x-same-as"]
            link = f'<a href="#{text(other)}">{text(self.heading_of(other))}</a>'
            return f"{head}<p>The same as {link}.</p>\n</article>\n"
        body = self.resolve(operation.get("requestBody", {}))
        answers = "".join(self.answer(status, response) for status, response in operation["responses"].items())
        return "".join((
            head, prose(operation.get("description")), self.access(operation), self.call(method, path, operation),
            self.parameters(operation),
            f"<h4>Body</h4>\n{prose(body.get('description'))}{self.contents(body)}" if body else "",
            f"<h4>Answers</h4>\n<ul>{answers}</ul>\n</article>\n"))

    def operations(self):
        for path, item in self.spec["paths"].items():
            for method in METHODS:
                if method in item:
                    yield path, method, item[method]

    def heading_of(self, operation_id):
        for path, method, operation in self.operations():
            if operation["operationId"] == operation_id:
                return f"{method.upper()} {path}"
        raise KeyError(operation_id)

    # ---- the page ----

    def sections(self):
        """(anchor, title, entries of the navigation, HTML)."""
        done = []
        for tag in self.spec.get("tags", ()):
            anchor = "section-" + re.sub(r"\W+", "-", tag["name"].lower())
            mine = [each for each in self.operations() if tag["name"] in each[2]["tags"]]
            entries = [(each["operationId"], f"{verb(method)} {text(path)}") for path, method, each in mine]
            done.append((anchor, tag["name"], entries,
                         prose(tag.get("description")) + "".join(self.operation(*each) for each in mine)))
        components = self.spec.get("components", {})
        return done + [("section-access", "Access", *self.access_section(components.get("securitySchemes", {}))),
                       ("section-errors", "Errors", *self.error_section(components.get("responses", {})))]

    def access_section(self, schemes):
        entries = [("access-" + name, text(scheme.get("x-name", name))) for name, scheme in schemes.items()]
        body = ""
        for (anchor, title), scheme in zip(entries, schemes.values()):
            scopes = {}
            for flow in scheme.get("flows", {}).values():
                scopes.update(flow.get("scopes", {}))
            rows = "".join(f"<dt>{code(name)}</dt><dd>{inline(help)}</dd>\n" for name, help in scopes.items())
            body += (f'<article id="{text(anchor)}">\n<h3>{title}</h3>\n{prose(scheme.get("description"))}' +
                     (f"<dl>{rows}</dl>\n" if rows else "") + "</article>\n")
        return entries, body

    def error_section(self, responses):
        entries = [("answer-" + name, text(name)) for name in responses]
        body = "".join(f'<article id="answer-{text(name)}">\n<h3>{text(name)}</h3>\n{prose(response["description"])}'
                       f"{self.contents(response)}</article>\n" for name, response in responses.items())
        return entries, body

    def render(self):
        info = self.spec["info"]
        navigation = body = ""
        for anchor, title, entries, content in self.sections():
            links = "".join(f'<li><a href="#{text(target)}">{label}</a></li>' for target, label in
                            [(anchor, "Overview"), *entries])
            navigation += f"<details><summary>{text(title)}</summary><ul>{links}</ul></details>\n"
            body += (f'<section aria-labelledby="{text(anchor)}">\n<h2 id="{text(anchor)}">{text(title)}</h2>\n'
                     f"{content}</section>\n")
        return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
                f'<meta name="viewport" content="width=device-width,initial-scale=1">\n'
                f'<meta name="color-scheme" content="light dark">\n<title>{text(info["title"])} API</title>\n'
                f"<style>{STYLE}</style>\n</head>\n<body>\n<nav aria-label=\"Contents\">\n"
                f'<a class="skip" href="#content">Skip to the text</a>\n{navigation}</nav>\n<main id="content">\n'
                f'<h1>{text(info["title"])} API {text(info["version"])}</h1>\n{prose(info.get("description"))}'
                f'<p>For programs: <a href="/openapi.json">openapi.json</a></p>\n{body}</main>\n</body>\n</html>\n')


def policy():
    """Lets in the page's own style and nothing else."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return (f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")


def main():
    source, folder = sys.argv[1:]
    spec = load(source)
    made = {
        "openapi.json": json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n",
        "docs.html": Page(spec).render(),
        "docs.csp": policy(),
    }
    for name, content in made.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)


if __name__ == "__main__":
    main()
