import base64
import json

import pytest

from minirt.errors import InvalidInput
from minirt.images.credentials import Credentials, of_document


def document(**keys: str) -> str:
    packed = {key: {"auth": base64.b64encode(f"{value}:pw".encode()).decode()} for key, value in keys.items()}
    return json.dumps({"auths": packed})


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "user"),
    [
        (["r.io"], "r.io", "a/b", "r.io"),
        (["https://r.io/v1/"], "r.io", "a", "https://r.io/v1/"),
        (["http://r.io:5000/v2/"], "r.io:5000", "a", "http://r.io:5000/v2/"),
        (["r.io"], "r.io:5000", "a", None),
        (["r.io", "r.io/team", "r.io/team/app"], "r.io", "team/app", "r.io/team/app"),
        (["r.io", "r.io/team", "r.io/team/app"], "r.io", "team/apple", "r.io/team"),
        (["r.io/team"], "r.io", "teams/x", None),
        (["https://index.docker.io/v1/"], "docker.io", "library/x", "https://index.docker.io/v1/"),
        (["docker.io"], "docker.io", "library/x", "docker.io"),
        (["*.r.io", "a.r.io"], "a.r.io", "x", "a.r.io"),
        (["*.r.io"], "a.b.r.io", "x", None),
        (["prefix*.r.io/team"], "prefix7.r.io", "team/x", "prefix*.r.io/team"),
        ([], "r.io", "x", None),
    ],
)
def test_which_entry_is_for_a_repository(keys: list[str], registry: str, repository: str, user: str | None) -> None:
    """A longer path before a shorter one, and a name before a pattern. Where the user is the key, a colon ends it."""
    found = of_document(document(**{key: key for key in keys}), registry, repository, "a secret")
    first = user.partition(":")[0] if user else None
    assert (found.user if found else None) == first


def test_the_forms_of_an_entry() -> None:
    for entry, wanted in (
        ({"auth": "YTpiOmM="}, Credentials("a", "b:c")),
        ({"username": "a", "password": "b"}, Credentials("a", "b")),
        ({"auth": "YTo=", "identitytoken": "t"}, Credentials("a", "", "t")),
        ({"registrytoken": "t"}, Credentials("", "", "", "t")),
        ({"email": "x@y"}, None),
    ):
        assert of_document(json.dumps({"auths": {"r.io": entry}}), "r.io", "x", "a secret") == wanted


def test_null_is_nothing() -> None:
    text = '{"auths": {"r.io": {"auth": "YTpi"}}, "credHelpers": null, "credsStore": null, "HttpHeaders": null}'
    assert of_document(text, "r.io", "x", "a secret") == Credentials("a", "b")
    assert of_document('{"auths": null}', "r.io", "x", "a secret") is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": 1}', '{"auths":{"r.io":{"auth":"YWI="}}}', '{"auths":{"r.io":{"auth":"%"}}}']
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"read the credentials .*in a secret"):
        of_document(text, "r.io", "x", "a secret")
