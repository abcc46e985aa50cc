"""The integers of the kernel's interfaces, as types: what is decoded to one is within its range, or an error.

    uid: U32        a decoder answers -1 or 2**32 with "Expected `int` >= 0 - at `$.process.user.uid`"

A decoder holds no bound above 2**63 - 1, so U64 ends there, and what may be more (RLIM_INFINITY) is checked by hand.
"""

from typing import Annotated

from msgspec import Meta

U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Major = Annotated[int, Meta(ge=0, le=2**12 - 1)]
"""A device's major number has 12 bits, its minor 20. Source: linux/kdev_t.h"""
Minor = Annotated[int, Meta(ge=0, le=2**20 - 1)]
AnyNumber = Annotated[int, Meta(ge=-1, le=2**32 - 1)]
"""A device's number in a rule: -1 is any."""
Seconds = Annotated[int, Meta(ge=1, le=2**31 // 1000)]
"""A timeout that poll(2) takes in milliseconds."""
