"""overlayfs' own marks for what is deleted, as they lie in a layer's directory.

Source: the kernel's filesystems/overlayfs.rst, "whiteouts and opaque directories"
"""

import errno
import os
import stat
from pathlib import Path

OPAQUE_XATTR = "trusted.overlay.opaque"
WHITEOUT_DEVICE = os.makedev(0, 0)


def is_whiteout(found: os.stat_result) -> bool:
    """Say whether this is the mark of a deleted name: a character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == WHITEOUT_DEVICE


def is_opaque(directory: Path) -> bool:
    """Say whether a directory hides all that lies below it."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
