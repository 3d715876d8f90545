import dataclasses

import pytest

from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS


def test_a_head_that_requests_share_stays_as_it_is() -> None:
    head = RequestHead(ENDPOINTS["/v1/chat/completions"], {}, b"")
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.caller = "another"  # type: ignore[misc]
