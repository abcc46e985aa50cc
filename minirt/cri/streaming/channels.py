"""What a remote command has on the network: numbered channels, whichever protocol carries them.

Source: k8s.io/apimachinery/pkg/util/remotecommand (the numbers); KEP 4006 (v5, and its 255)
"""

from typing import Protocol

from minirt.cri.streaming.pipes import Inlet

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
"""v5: the next byte is the channel that its sender closes."""


class Channels(Protocol):
    """The other end of an exec or attach."""

    stdin: Inlet
    resizes: Inlet

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes of a channel. Raises ConnectionError: the other end has gone."""
        ...

    async def finish(self, last: bytes) -> None:
        """Send the last word, a Status, on the error channel, and close."""
        ...

    async def read_on(self) -> None:
        """Take what comes from the other end until it has gone."""
        ...
