"""A dockerd of the tests' own leaves the network as it was: the next test must not feel its FORWARD DROP."""

from pathlib import Path

import pytest

from tests.peers.daemon import output
from tests.peers.docker import Dockerd


@pytest.mark.root
@pytest.mark.peer
@pytest.mark.needs("docker", "nft")
def test_docker_takes_its_tables_with_it(tmp_path: Path) -> None:
    before = output("nft", "list", "ruleset")
    own = Dockerd(tmp_path / "own", [])
    try:
        assert "DOCKER-USER" in output("nft", "list", "ruleset")
    finally:
        own.close()
    assert output("nft", "list", "ruleset") == before
