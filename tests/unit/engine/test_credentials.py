import base64

import pytest

from minirt.crimessages import api_pb2 as cri
from minirt.engine.messages import credentials
from minirt.errors import InvalidInput
from minirt.images.credentials import Credentials


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"username": "a", "password": "b"}, Credentials("a", "b")),
        ({"auth": base64.b64encode(b"a:b:c").decode()}, Credentials("a", "b:c")),
        ({"identity_token": "t"}, Credentials("", "", "t")),
        ({"registry_token": "t"}, Credentials("", "", "", "t")),
        ({"server_address": "https://r.example"}, None),
    ],
)
def test_what_a_pull_brings_along(given: dict[str, str], wanted: Credentials | None) -> None:
    assert credentials(cri.AuthConfig(**given)) == wanted


def test_one_that_makes_no_sense() -> None:
    with pytest.raises(InvalidInput, match="credentials of the call"):
        credentials(cri.AuthConfig(auth="%"))
