"""Where CNI's files are, apart from what calls its plugins: records name it, and few processes call any."""

from msgspec import Struct


class Directories(Struct, frozen=True):
    """Where configurations are, and where plugins."""

    configurations: str
    plugins: tuple[str, ...]
