"""minirt image's own small decisions: words, pairs, sizes, names."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minirt.cli.image import image
from minirt.cli.pullprogress import megabytes
from minirt.errors import InvalidInput


def run(*words: str) -> Result:
    return CliRunner().invoke(image, words, standalone_mode=False)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--cmd", "sh 'x"), "No closing quotation"),
        (("--cmd", "[1]"), "not all of the list are strings"),
        (("--cmd", "[sh"), "Expecting value"),
        (("--entrypoint", '["a", {}]'), "not all of the list are strings"),
        (("--env", "novalue"), "there is no name and '='"),
        (("--label", "=x"), "there is no name and '='"),
        (("--platform", "amd64"), "a platform is os/architecture"),
    ],
)
def test_import_refuses_what_it_cannot_read(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    error = run("import", *options, str(tmp_path), "localhost/x").exception
    assert isinstance(error, InvalidInput)
    assert why in str(error)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0B"), (999, "999B"), (1234, "1.23kB"), (4_260_000, "4.26MB"), (3_000_000_000, "3GB")]
)
def test_sizes_are_shown_as_docker_does(size: int, shown: str) -> None:
    assert megabytes(size) == shown


def test_a_list_of_nothing_has_a_head() -> None:
    assert run("ls").output.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert run("ls", "-q").output == ""


def test_removing_goes_on_after_an_error() -> None:
    result = run("rm", "localhost/a", "localhost/b")
    assert result.return_value == 1
    assert result.output.count("it is not in the store") == 2
