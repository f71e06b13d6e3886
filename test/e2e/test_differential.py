"""No request is framed otherwise than nginx, haproxy, node and h11 frame it, and yet accepted."""

import asyncio

import differential
from fixtures import run_gateway
import pytest


@pytest.fixture(scope="module")
def echoing(stores):
    yield from run_gateway(stores, {"WAKEGATE_TEST_ENDPOINTS": "1"}, works=0)


def test_what_is_accepted_is_framed_as_others_frame_it(echoing, tmp_path):
    port = int(echoing.serves[0].url().rsplit(":", 1)[1])
    result = asyncio.run(differential.run(port, str(tmp_path)))
    print(result.sent, result.accepted, result.compared)
    assert not result.differences, "\n".join(result.differences)
    # It has compared something.
    assert result.accepted > 300 and all(count > 150 for count in result.compared.values()), result.compared
