import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
pytest.register_assert_rewrite("books", "stores", "wakegate")

from fixtures import *  # noqa: E402,F401,F403
