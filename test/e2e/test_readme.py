"""The tour of the README works as it is written there."""

import os
import re
import signal
import subprocess

import pytest

from stores import end_process, make_folder, remove_folder, wait_until
from wakegate import BINARY, ROOT, environment

README = os.path.join(ROOT, "README.md")


def readme():
    with open(README, encoding="utf-8") as file:
        return file.read()


def output_of(command):
    return subprocess.run([BINARY, command], capture_output=True, text=True, timeout=60, check=True).stdout


def tour():
    """The shell blocks of the section "A minute's tour"."""
    section = re.search(r"^## A minute's tour$(.*?)(?=^## |\Z)", readme(), re.MULTILINE | re.DOTALL)
    assert section, "README.md has no section \"A minute's tour\""
    return re.findall(r"^```sh$(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)


@pytest.fixture
def up():
    """`wakegate up`, started in a folder of its own as `make run` is in the checkout."""
    folder = make_folder()
    with open(os.path.join(folder, "up.log"), "wb") as log:
        process = subprocess.Popen([BINARY, "up", "--port", "0"], cwd=folder, env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        credentials = os.path.join(folder, ".wakegate", "credentials.env")

        def ready():
            with open(log.name, errors="replace") as file:
                text = file.read()
            assert process.poll() is None, text
            return os.path.exists(credentials)
        wait_until(ready, 90, "the credentials", 0.1)
        yield folder
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        end_process(process)
        remove_folder(folder)


def test_the_settings_are_those_of_the_program():
    table = re.search(r"^<!-- settings -->\n(.*?)^<!-- /settings -->$", readme(), re.MULTILINE | re.DOTALL)
    assert table and table[1] == output_of("settings")


def test_every_route_is_named():
    text = readme()
    for line in output_of("routes").splitlines():
        method, path = line.split()[1:3]
        assert f"`{method} {path}`" in text or f"`{path}`" in text, (method, path)


def test_the_tour_works_as_written(up):
    blocks = tour()
    assert blocks
    done = subprocess.run(["bash", "-e"], input="\n".join(blocks), cwd=up, env=environment(), capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for word in ('"queued"', '"delivered"', '"healthy"', '"terminated"', "Hello AI!", "Are you there?", "Your workspace is awake",
                 '"plan":"pro"', "data: [DONE]", '"object":"job"', '"scopes":["account:read"]', '"access_token":"wga_', '"action":"oauth.client_token"'):
        assert word in done.stdout, (word, done.stdout)
    assert not re.search(r'"error":[^n]', done.stdout), done.stdout
