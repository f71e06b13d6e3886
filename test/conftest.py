import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e"))
pytest.register_assert_rewrite("books", "stores", "wakegate")

from fixtures import *  # noqa: E402,F401,F403


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from schedule import ByFile

    return ByFile(config, log)
