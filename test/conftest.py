import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e"))
pytest.register_assert_rewrite("books", "stores", "wakegate")

from fixtures import *  # noqa: E402,F401,F403
from stores import make_fast_folder, remove_folder  # noqa: E402

shared_folders = []  # of the process that pytest-xdist's workers are started by


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    if not shared_folders:
        shared_folders.append(make_fast_folder())
    node.workerinput["shared_folder"] = shared_folders[0]


def pytest_unconfigure():
    while shared_folders:
        remove_folder(shared_folders.pop())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from schedule import ByFile

    return ByFile(config, log)
