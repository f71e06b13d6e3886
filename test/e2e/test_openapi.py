"""The API's description, its page and the program's routes say the same. Real answers: test_openapi_answers.py."""

import base64
import hashlib
import json
import re

import pytest
import requests

from description import PageReader, Spec, load_yaml, routes
from wakegate import run

# Surfaces that are chosen by host, or that only tests have: no part of the description, but named in its prose.
LEFT_OUT = {"workspace": "vs-code-"}
UNUSED = {"oauth"}  # what its tokens open is not there yet


@pytest.fixture(scope="module")
def spec(gateway):
    answer = requests.get(gateway.url + "/openapi.json", timeout=10)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    return Spec(answer.json())


# ---- the document ----

def test_what_is_served_is_the_yaml(spec):
    assert spec.document == load_yaml()
    assert run("version").stdout.split() == ["wakegate", spec.document["info"]["version"]]


def test_routes_and_description_are_the_same(spec):
    told = {(each.method, each.path): each for each in spec.operations}
    served = {}
    for surface, method, path, access, scopes, limited in routes():
        if surface in LEFT_OUT:
            assert path.startswith(LEFT_OUT[surface]) and LEFT_OUT[surface] in spec.document["info"]["description"]
        else:
            served[method, path] = (access, scopes, limited)
    assert {surface for surface, *_ in routes()} >= set(LEFT_OUT), "a surface is left out that there is not"
    assert set(told) == set(served)
    for name, (access, scopes, limited) in served.items():
        assert told[name].scopes == scopes, name
        assert (limited == "limited") == ("429" in told[name].told["responses"]), name
        if access != "open":
            assert told[name].security, name
        elif told[name].tag not in ("Operations", "OAuth 2.0"):  # those ask for credentials by themselves
            assert not told[name].security, name


def test_the_document_holds_together(spec):
    ids = [each.id for each in spec.operations]
    assert len(ids) == len(set(ids))
    assert [tag["name"] for tag in spec.document["tags"]] == list(dict.fromkeys(each.tag for each in spec.operations))
    schemes = spec.document["components"]["securitySchemes"]
    used = set()
    for each in spec.operations:
        in_path = {parameter["name"] for parameter in each.parameters if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", each.path)), each
        assert all(parameter["required"] for parameter in each.parameters if parameter["in"] == "path"), each
        assert all(scheme in schemes for scheme, _ in each.security), each
        assert "default" in each.told["responses"], each
        used |= {scheme for scheme, _ in each.security}
        if "x-same-as" in each.told:
            other = next(one for one in spec.operations if one.id == each.told["x-same-as"])
            same = {**each.told, "operationId": other.id}
            same.pop("x-same-as")
            assert same == other.told, each
    assert used | UNUSED == set(schemes)


def every(value, where="#"):
    yield where, value
    if isinstance(value, (dict, list)):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from every(part, f"{where}/{name}")


def test_no_comma_has_made_a_member_of_a_sentence(spec):
    """{description: Seconds, no more} has two members to YAML."""
    for where, value in every(spec.document):
        assert not isinstance(value, dict) or not any(" " in name or name.endswith(".") for name in value), where


def test_references_lead_somewhere_and_components_are_used(spec):
    used = {value["$ref"] for _, value in every(spec.document) if isinstance(value, dict) and "$ref" in value}
    for reference in used:
        spec.resolve({"$ref": reference})
    there = {f"#/components/{kind}/{name}" for kind, parts in spec.document["components"].items()
             for name in parts if kind != "securitySchemes"}
    assert there == used


def test_events_are_those_of_the_program(spec):
    told = spec.document["components"]["schemas"]["Event"]["oneOf"]
    assert [(each["properties"]["type"]["const"], each["description"], each["properties"]["data"]) for each in told] == \
        [(each["name"], each["help"] + ".", each["data"]) for each in map(json.loads, run("events").stdout.splitlines())]


def test_examples_are_what_their_schemas_say(spec):
    count = 0
    for where, value in every(spec.document):
        if isinstance(value, dict) and "schema" in value and "example" in value:
            spec.check_value(value["schema"], value["example"])
            count += 1
    assert count >= len(spec.operations)


# ---- the page ----

def test_the_page_names_every_operation_and_loads_nothing(gateway, spec):
    answer = requests.get(gateway.url + "/docs", timeout=10)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = PageReader(answer.content.decode())
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {each.id for each in spec.operations} <= set(ids)
    for each in spec.operations:
        assert f"{each.method} {each.path}" in page.text
        assert each.told["summary"].replace("`", "") in page.text
    for tag, attrs in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "form", "base"), tag
        assert not {name for name in attrs if name.startswith("on") or name in ("src", "srcset", "style")}, (tag, attrs)
        target = attrs.get("href")
        assert target is None or target[0] == "#" and target[1:] in ids or target == "/openapi.json", target
    assert not re.search(r"@import|url\(", answer.text)


def test_the_policy_of_the_page_lets_in_its_own_style_and_nothing_else(gateway):
    answer = requests.get(gateway.url + "/docs", timeout=10)
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert policy == (f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
                      "frame-ancestors 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_is_sent_whole_however_it_is_asked_for(gateway):
    """It is longer than the output that is kept for a client."""
    for path in ("/docs", "/openapi.json"):
        whole = requests.get(gateway.url + path, timeout=10)
        assert int(whole.headers["Content-Length"]) == len(whole.content)
        head = requests.head(gateway.url + path, timeout=10)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["Content-Length"] == whole.headers["Content-Length"]
