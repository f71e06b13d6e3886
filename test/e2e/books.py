"""What the pods of pod.py have written down, and what must be true of it whatever happened."""

import json


def read_lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def read_book(gateway, uuid, name):
    return [json.loads(line) for line in read_lines(gateway.workspace(uuid, name))]


def asked_texts(gateway, uuid):
    return [line["message"] for line in read_book(gateway, uuid, "asked.jsonl")]


def pod_starts(gateway, uuid):
    """A line for each start: pid and generation."""
    return read_lines(gateway.workspace(uuid, "starts"))


def check_once_each(gateway, uuid, texts):
    """Every message answered once, in the order of acceptance; the API says the same; never two pods at once."""
    answers = [f"{i}: {text}" for i, text in enumerate(texts, 1)]
    messages = gateway.client().all_messages(uuid)
    assert [(m["message"], m["status"], m["response"], m.get("error")) for m in messages] == [
        (text, "delivered", answer, None) for text, answer in zip(texts, answers)]
    answered = read_book(gateway, uuid, "answered.jsonl")
    assert [line["response"] for line in answered] == answers
    assert [line["message_id"] for line in answered] == [m["message_id"] for m in messages]
    assert read_lines(gateway.workspace(uuid, "conflicts")) == []
