"""The API's description, as tests use it: what it says of an operation, and whether a real answer is what it says."""

import html.parser
import os
import re

import jsonschema
import yaml

from wakegate import ROOT, run

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def load_yaml():
    """The document in schema/openapi.yaml: all but the pieces that it uses again."""
    with open(os.path.join(ROOT, "schema", "openapi.yaml"), encoding="utf-8") as file:
        whole = yaml.safe_load(file)
    return {name: value for name, value in whole.items() if not name.startswith("x-")}


def routes():
    """(surface, method, path, access, scopes, "limited" or "-") of `wakegate routes`."""
    done = run("routes")
    assert done.returncode == 0, done.stderr
    rows = []
    for line in done.stdout.splitlines():
        *row, rest = line.split(maxsplit=4)
        scopes, limited = re.match(r"(-|[a-z:]+(?: [a-z:]+)*?) +(limited|-) ", rest).groups()
        rows.append((*row, set(scopes.split()) - {"-"}, limited))
    return rows


class Operation:
    def __init__(self, spec, method, path, told):
        self.spec = spec
        self.method = method.upper()
        self.path = path
        self.told = told
        self.id = told["operationId"]
        self.tag = told["tags"][0]
        literal = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
        self.pattern = re.compile(literal + r"\Z")

    def __repr__(self):
        return f"{self.method} {self.path}"

    @property
    def parameters(self):
        return [self.spec.resolve(each) for each in self.told.get("parameters", ())]

    @property
    def security(self):
        """[(scheme, scopes)]: any of them will do. Empty: open to everyone."""
        return [pair for way in self.told.get("security", ()) for pair in way.items()]

    @property
    def scheme(self):
        """The first of them; None: open."""
        return self.security[0][0] if self.security else None

    @property
    def scopes(self):
        """Those that each of the ways in asks for."""
        sets = {frozenset(scopes) for _, scopes in self.security}
        assert len(sets) <= 1, self
        return set(sets.pop()) if sets else set()

    @property
    def body_kinds(self):
        return list(self.spec.resolve(self.told.get("requestBody", {})).get("content", {}))

    @property
    def example(self):
        """Of the body in its first media type; None without a body."""
        content = self.spec.resolve(self.told.get("requestBody", {})).get("content", {})
        return next((media["example"] for media in content.values()), None)

    def takes(self, name):
        return any(parameter["name"] == name for parameter in self.parameters)

    def path_with(self, objects):
        return re.sub(r"\{(\w+)\}", lambda match: objects[match[1]], self.path)

    def answer_name(self, status):
        """The component that describes an answer; None where the operation does it itself."""
        told = self.told["responses"].get(str(status), {})
        return told["$ref"].rpartition("/")[2] if "$ref" in told else None


class Spec:
    def __init__(self, document):
        self.document = document
        self.operations = [Operation(self, method, path, item[method])
                           for path, item in document["paths"].items() for method in METHODS if method in item]
        self.seen = set()  # (operation's id, status as the document has it)

    def resolve(self, value):
        while isinstance(value, dict) and "$ref" in value:
            assert value["$ref"].startswith("#/"), value
            target = self.document
            for part in value["$ref"][2:].split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            value = {**target, **{name: own for name, own in value.items() if name != "$ref"}}
        return value

    def operation(self, name):
        return next(each for each in self.operations if each.id == name)

    def of_tag(self, tag):
        return [each for each in self.operations if each.tag == tag]

    def find(self, method, path):
        """Literal paths come before those with parameters."""
        method = "GET" if method == "HEAD" else method
        fitting = [each for each in self.operations if each.pattern.match(path) and each.method == method]
        return min(fitting, key=lambda each: each.path.count("{"), default=None)

    def check_value(self, schema, value):
        """References are those of the whole document: its components go along."""
        whole = {**schema, "components": self.document["components"]} if isinstance(schema, dict) else schema
        jsonschema.Draft202012Validator(whole).validate(value)

    def check(self, answer, operation=None):
        """Whether an answer of python-requests is as the operation tells it: status, header fields, type and body."""
        operation = operation or self.find(answer.request.method, answer.request.path_url.partition("?")[0])
        assert operation, answer.request.path_url
        where = f"{operation}: {answer.status_code} {answer.text[:500]}"
        responses = operation.told["responses"]
        status = str(answer.status_code) if str(answer.status_code) in responses else "default"
        assert status != "default" or answer.status_code >= 400, f"{where} is not described"
        self.seen.add((operation.id, status))
        told = self.resolve(responses[status])
        try:
            self.check_headers(told.get("headers", {}), answer.headers)
            self.check_body(told.get("content"), answer)
        except (AssertionError, jsonschema.ValidationError) as error:
            raise AssertionError(f"{where}\n{error}") from None

    def check_headers(self, told, headers):
        for name, header in ((name, self.resolve(each)) for name, each in told.items()):
            assert name in headers or not header.get("required"), f"{name} is missing"
            if name in headers:
                whole = self.resolve(header["schema"]).get("type") == "integer"
                self.check_value(header["schema"], int(headers[name]) if whole else headers[name])

    def check_body(self, content, answer):
        if answer.request.method == "HEAD" or not content:
            assert answer.content == b"", "a body that is not described"
            return
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in content, f"{kind} is not described"
        value = answer.json() if kind == "application/json" else answer.text
        self.check_value(content[kind].get("schema", True), value)

    def unseen(self, operations):
        """What is described of these operations and was not answered; "default" needs no answer of each."""
        return {(each, status) for each in operations for status in each.told["responses"]
                if status != "default" and (each.id, status) not in self.seen}


VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class PageReader(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.elements = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open, tag, self.getpos())
        self.open.pop()

    def handle_data(self, data):
        self.text += data
