"""The last steps of a container's init, and the context all its operations share.

Everything here runs between clone3 and execve, in the container: it imports nothing, and trusts nothing it finds.
"""

import contextlib
import errno
import fcntl
import os
import stat
import termios

from msgspec import Struct, field

from minirt import journal
from minirt.errors import CommandNotFound, MinirtError, StepFailed
from minirt.linux import calls, fds, mount, prctl, process
from minirt.linux.calls import Call, call
from minirt.linux.operation import Operation
from minirt.linux.sockets import Socket
from minirt.namespaces import inroot
from minirt.oci import sync
from minirt.security.seccomp import Filter

PTMX = os.makedev(5, 2)
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
PASSWD_BYTES = 1 << 20


class Init(Struct):
    """What init's operations hand to each other; ``prepared`` are mounts that its stage made and it is to attach.

    ``blank`` is an empty file, to be /proc/self/exe when the program is executed (-1: the kernel cannot do that).
    """

    sync: Socket
    stdio: tuple[int, int, int]
    rootfs_fd: int = -1
    empty_fd: int = -1
    executable: str = ""
    home: str = ""
    filter: Filter | None = None
    blank: int = -1
    prepared: list[int] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Tell the shim of something optional that could not be done."""
        sync.send(self.sync, {"type": "warning", "text": text})


class Undumpable(Operation[Init], frozen=True):
    """Let nobody look into this process until it executes a program: it may be seen from inside the container."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "prctl PR_SET_DUMPABLE 0"

    def execute(self, context: Init) -> None:
        """Set it; children inherit it."""
        prctl.set_dumpable(False)

    def calls(self, context: Init) -> list[Call]:
        """Return the one call."""
        return [calls.prctl(calls.PR_SET_DUMPABLE, 0)]


class CloseInherited(Operation[Init], frozen=True):
    """Close what a fork of the shim brings along: the host's files must not be in reach from the container."""

    keep: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return the operation in words."""
        return "close_range all but stdio and the socket to the shim"

    def execute(self, context: Init) -> None:
        """Close them."""
        for first, last in fds.gaps(self._kept(context)):
            journal.step("close_range", fds.close_range, first, last, 0)

    def calls(self, context: Init) -> list[Call]:
        """Return a call for each gap between those that are kept."""
        return [call("close_range", first, last, 0) for first, last in fds.gaps(self._kept(context))]

    def _kept(self, context: Init) -> set[int]:
        kept = {0, 1, 2, context.sync.fileno(), *context.stdio, *context.prepared, *self.keep}
        return kept | ({context.blank} - {-1})


class NewSession(Operation[Init], frozen=True):
    """Leave the session and process group of whoever started this."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "setsid"

    def execute(self, context: Init) -> None:
        """Become a session leader."""
        journal.step("setsid", os.setsid)

    def calls(self, context: Init) -> list[Call]:
        """Return the one call."""
        return [call("setsid")]


class NewKeyring(Operation[Init], frozen=True):
    """Leave the session keyring of whoever started this: its keys are the host's, and no namespace hides them."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "keyctl KEYCTL_JOIN_SESSION_KEYRING, a new one"

    def execute(self, context: Init) -> None:
        """Make one; warn and go on where the kernel has no keys, or a filter around minirt forbids them."""
        try:
            process.join_session_keyring()
        except OSError as error:
            context.warn(self._why_not(error.errno or 0))

    def calls(self, context: Init) -> list[Call]:
        """Return the one call; it may fail."""
        join = calls.KEYCTL_JOIN_SESSION_KEYRING
        return [call("keyctl", join, 0, shown=(), excused=calls.ANY_ERROR, warn=self._why_not)]

    def _why_not(self, number: int) -> str:
        return f"the container shares the host's session keyring: {os.strerror(number)}"


class Stdio(Operation[Init], frozen=True):
    """Put the shim's pipes in the place of descriptors 0, 1 and 2."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "dup2 the pipes of stdin, stdout, stderr to 0, 1, 2"

    def execute(self, context: Init) -> None:
        """Duplicate them."""
        for number, fd in enumerate(context.stdio):
            os.dup2(fd, number)

    def calls(self, context: Init) -> list[Call]:
        """Return a dup3 for each that is not in its place; there is no dup2 on every machine."""
        placed = enumerate(context.stdio)
        return [call("dup3", fd, number, 0, is_step=False) for number, fd in placed if fd != number]


class OpenTerminal(Operation[Init], frozen=True):
    """Make a terminal in the container's own devpts, control it, and send its master to the shim."""

    height: int = 0
    width: int = 0
    console: bool = True
    uid: int = 0

    def describe(self) -> str:
        """Return the operation in words."""
        return "open /dev/ptmx, make its peer the controlling terminal" + (" and /dev/console" if self.console else "")

    def execute(self, context: Init) -> None:
        """Open a pair; the peer comes from the master itself (TIOCGPTPEER), never by a path."""
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if os.fstat(master).st_rdev != PTMX:
            raise StepFailed("open a terminal", "/dev/ptmx in the container is not a terminal multiplexer")
        fcntl.ioctl(master, TIOCSPTLCK, bytes(4))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.height:
            termios.tcsetwinsize(slave, (self.height, self.width))
        if self.uid:
            os.fchown(slave, self.uid, -1)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if self.console:
            self._bind_console(context, slave)
        for number in range(3):
            os.dup2(slave, number)
        sync.send(context.sync, {"type": "terminal"}, master)
        os.close(master)

    def _bind_console(self, context: Init, slave: int) -> None:
        """Show the terminal as /dev/console, and over nothing else: a symlink is not followed (CVE-2025-52565)."""
        tree = mount.open_tree(slave, "", mount.OPEN_TREE_CLONE | mount.AT_EMPTY_PATH)
        with fds.closing(tree), fds.closing(inroot.make_directory(context.rootfs_fd, "/dev")) as directory:
            with contextlib.suppress(FileExistsError):
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open("console", flags, 0o600, dir_fd=directory))
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            with fds.closing(os.open("console", flags, dir_fd=directory)) as target:
                if stat.S_ISLNK(os.fstat(target).st_mode):
                    raise StepFailed("open a terminal", "/dev/console in the container is a symlink", "remove it")
                mount.move_mount(tree, target)


class MakeCwd(Operation[Init], frozen=True):
    """Make the working directory where the image lacks it, as docker does."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mkdir -p {self.path}"

    def execute(self, context: Init) -> None:
        """Make it inside the root."""
        os.close(inroot.make_directory(context.rootfs_fd, self.path))


class Chdir(Operation[Init], frozen=True):
    """Go to the working directory, and see that it is one of the container's."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"chdir {self.path}"

    def execute(self, context: Init) -> None:
        """Change directory; one that cannot be reached from the root is refused (the class of CVE-2024-21626)."""
        journal.step("chdir", os.chdir, self.path)
        try:
            os.getcwd()
        except FileNotFoundError:
            raise self._outside() from None

    def calls(self, context: Init) -> list[Call]:
        """Return both."""
        return [call("chdir", calls.text(self.path), shown=(self.path,)), calls.is_inside(lambda _: self._outside())]

    def _outside(self) -> StepFailed:
        return StepFailed(self.describe(), "it leads out of the container's root")


class SetUmask(Operation[Init], frozen=True):
    """Set the file mode creation mask."""

    mask: int = 0o022

    def describe(self) -> str:
        """Return the operation in words."""
        return f"umask {self.mask:03o}"

    def execute(self, context: Init) -> None:
        """Set it."""
        journal.step("umask", os.umask, self.mask)

    def calls(self, context: Init) -> list[Call]:
        """Return the one call."""
        return [call("umask", self.mask)]


class FindExecutable(Operation[Init], frozen=True):
    """Find the command in the container, with the user's own rights."""

    command: str
    search: tuple[str, ...]

    def describe(self) -> str:
        """Return the operation in words."""
        where = f" in {':'.join(self.search)}" if "/" not in self.command else ""
        return f"find {self.command}{where}"

    def execute(self, context: Init) -> None:
        """Take the first that may be executed; remember why another could not."""
        refused: MinirtError | None = None
        for path in self._candidates():
            number = _why_not(path)
            if not number:
                context.executable = path
                return
            if number not in {errno.ENOENT, errno.ENOTDIR}:
                refused = refused or sync.exec_error(path, number)
        raise refused or self._not_found()

    def calls(self, context: Init) -> list[Call]:
        """Return the same search, in C."""
        return [calls.find(self._candidates(), self._refused)]

    def _candidates(self) -> list[str]:
        return [self.command] if "/" in self.command else [f"{at}/{self.command}" for at in self.search]

    def _refused(self, why: int) -> MinirtError:
        number = why & 0xFFFF
        return self._not_found() if number == errno.ENOENT else sync.exec_error(self._candidates()[why >> 16], number)

    def _not_found(self) -> MinirtError:
        why = "no such file or directory" if "/" in self.command else "executable file not found in $PATH"
        return CommandNotFound(
            f"execute {self.command!r}", why, "is it in the image?", errno=errno.ENOENT, stage="init"
        )


def _why_not(path: str) -> int:
    """Return the errno with which executing ``path`` would fail (0 if it would not)."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return errno.EISDIR
    except OSError as error:
        return error.errno or errno.ENOENT
    return 0 if os.access(path, os.X_OK, effective_ids=True) else errno.EACCES


class WaitForStart(Operation[Init], frozen=True):
    """Stand at the gate until the shim says start."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "say ready, wait for start"

    def execute(self, context: Init) -> None:
        """Report, then wait; the end of the pair means that nobody wants this container any more."""
        sync.send(context.sync, {"type": "ready"})
        message, _ = sync.receive(context.sync)
        if message is None:
            os._exit(125)

    def calls(self, context: Init) -> list[Call]:
        """Return none: who has no Python is held back by nobody."""
        return []


class FindHome(Operation[Init], frozen=True):
    """Look the user's home up where the environment has no HOME, as runc does."""

    uid: int

    def describe(self) -> str:
        """Return the operation in words."""
        return f"find the home of user {self.uid} in /etc/passwd"

    def execute(self, context: Init) -> None:
        """Take the first line of the user's; / where there is none. The file is the container's: nothing is trusted."""
        try:
            fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            context.home = "/"
            return
        with fds.closing(fd):
            text = os.read(fd, PASSWD_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        rows = (line.split(b":") for line in text.splitlines())
        homes = [row[5] for row in rows if len(row) == 7 and row[2] == str(self.uid).encode()]
        context.home = os.fsdecode(homes[0]) if homes and homes[0].startswith(b"/") else "/"


class LoadFilter(Operation[Init], frozen=True):
    """Filter the container's system calls, from its execve on: ``Execute`` loads it, for no Python may run under it."""

    filter: Filter

    def describe(self) -> str:
        """Return the operation in words."""
        return f"seccomp SECCOMP_SET_MODE_FILTER, {self.filter.length} instructions"

    def execute(self, context: Init) -> None:
        """Hand it to the last step."""
        context.filter = self.filter

    def calls(self, context: Init) -> list[Call]:
        """Hand it to the last step."""
        context.filter = self.filter
        return []


class Execute(Operation[Init], frozen=True):
    """Become the program: signals to default, all but 0-2 closed, /proc/self/exe made blank, the filter loaded, execve.

    In C, and for good: from the third step on there is no Python any more. The listener of a filter that has one is
    sent on the pair, as {"type": "listener"}.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    preserved: int = 0

    def describe(self) -> str:
        """Return the operation in words."""
        return f"execve {' '.join(self.args)}"

    def execute(self, context: Init) -> None:
        """Never return: the program runs, or C reports the errno and exits."""
        env = (*self.env, f"HOME={context.home}") if context.home else self.env
        found, report = context.filter, context.sync.fileno()
        process.execute(
            context.executable,
            self.args,
            env,
            report,
            context.blank,
            program=found.program if found else b"",
            length=found.length if found else 0,
            flags=found.flags if found else 0,
            kept=self.preserved,
        )

    def calls(self, context: Init) -> list[Call]:
        """Return none: a child without Python does this when it has made all its calls."""
        return []
