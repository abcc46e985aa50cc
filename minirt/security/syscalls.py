"""The default seccomp profile: the system calls that a container may make, by what they are for.

It lets through what docker's lets through, on the same conditions. What is not listed answers EPERM; what the profile
or libseccomp is too old to know answers ENOSYS (see unknown.py), so that libc falls back. Left out on purpose are calls

    that no namespace contains    keyctl add_key request_key (keyrings), swapon, kexec_load, settimeofday, reboot
    that exploits have begun with userfaultfd, io_uring_*, bpf, perf_event_open, sockets of AF_ALG
    that build more containers    mount and its new API, unshare, setns, clone with namespaces, pivot_root

some of which a capability gives back. Names that an architecture does not have are skipped there.
Source: moby's default profile (docs.docker.com/engine/security/seccomp), syscalls(2), capabilities(7)
"""

from functools import cache

from minirt.security.conditional import Condition, ConditionalRule, Family, Profile
from minirt.security.profile import Argument

PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pause restart_syscall
    getpid getppid gettid getpgid getpgrp getsid setpgid setsid set_tid_address prctl rseq
    pidfd_open pidfd_send_signal process_mrelease get_robust_list set_robust_list get_thread_area set_thread_area
    ptrace process_vm_readv process_vm_writev
"""
SIGNALS = """
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn signalfd signalfd4 alarm
"""
CREDENTIALS = """
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
    setresgid setresgid32 setgroups setgroups32 setfsuid setfsuid32 setfsgid setfsgid32 capget capset
    seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
"""
SCHEDULING = """
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getcpu
    getrlimit setrlimit ugetrlimit prlimit64 getrusage times sysinfo uname
"""
MEMORY = """
    brk mmap mmap2 munmap mremap remap_file_pages mprotect madvise mincore msync mlock mlock2 mlockall munlock
    munlockall membarrier memfd_create memfd_secret mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect
"""
LOCKS = """
    futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue
"""
TIME = """
    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_adjtime clock_adjtime64
    adjtimex nanosleep clock_nanosleep clock_nanosleep_time64 getitimer setitimer
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""
OPENING = """
    open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2
    eventfd eventfd2 name_to_handle_at umask
"""
READING_AND_WRITING = """
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead cachestat
    sendfile sendfile64 splice tee vmsplice copy_file_range fallocate fadvise64 fadvise64_64
    truncate truncate64 ftruncate ftruncate64 sync syncfs fsync fdatasync sync_file_range
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
"""
PATHS = """
    getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat
    readlink readlinkat rename renameat renameat2 mknod mknodat
    stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
    statmount listmount access faccessat faccessat2 chmod fchmod fchmodat fchmodat2
    chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes utimensat utimensat_time64 futimesat
"""
ATTRIBUTES = """
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
"""
WAITING = """
    select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
"""
SOCKETS = """
    socketpair bind connect listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
"""
SYSTEM_V_AND_POSIX_IPC = """
    ipc shmget shmat shmctl shmdt semget semctl semop semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
"""
OTHERS = "getrandom riscv_hwprobe uretprobe socketcall"
"""``socketcall``, i386's door to sockets, hides the address family behind a pointer: a filter cannot look there."""

FREE = (
    *(PROCESSES, SIGNALS, CREDENTIALS, SCHEDULING, MEMORY, LOCKS, TIME, OPENING, READING_AND_WRITING, PATHS),
    *(ATTRIBUTES, WAITING, SOCKETS, SYSTEM_V_AND_POSIX_IPC, OTHERS),
)
"""Everybody's."""

BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
"""What a capability in the bounding set gives back."""

BY_ARCHITECTURE = {
    ("ppc64le",): "sync_file_range2 swapcontext",
    ("arm", "arm64"): "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ("amd64", "x32"): "arch_prctl",
    ("amd64", "x32", "x86"): "modify_ldt",
    ("s390", "s390x"): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    ("riscv64",): "riscv_flush_icache",
}

FAMILIES = (
    Family("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    Family("SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
    Family("SCMP_ARCH_S390X", ("SCMP_ARCH_S390",)),
    Family("SCMP_ARCH_RISCV64"),
)
"""Programs of which architectures run; for a machine that is not here, its own only."""

NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. Source: clone(2)."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, with a 32-bit address space's layout, a 2.6 kernel's name, both; and asking. Source: personality(2)."""

AF_ALG, AF_VSOCK = 38, 40
"""The kernel's ciphers, and the way to the host of a virtual machine: neither belongs to a network namespace."""

ENOSYS = 38


@cache
def default_profile() -> Profile:
    """Return the profile of containers that are given no other."""
    rules = [_allow(" ".join(FREE))]
    rules += [_allow("socket", Argument(0, AF_ALG, "SCMP_CMP_LT"))]
    rules += [_allow("socket", Argument(0, family, "SCMP_CMP_EQ")) for family in range(AF_ALG + 1, AF_VSOCK)]
    rules += [_allow("socket", Argument(0, AF_VSOCK, "SCMP_CMP_GT"))]
    rules += [_allow("personality", Argument(0, value, "SCMP_CMP_EQ")) for value in PERSONALITIES]
    rules += [_allow(names, includes=Condition(arches=arches)) for arches, names in BY_ARCHITECTURE.items()]
    rules += [_allow(names, includes=Condition(caps=(name,))) for name, names in BY_CAPABILITY.items()]
    return Profile("SCMP_ACT_ERRNO", 1, arch_map=FAMILIES, syscalls=(*rules, *_processes_without_namespaces()))


def _allow(
    names: str, *args: Argument, includes: Condition | None = None, excludes: Condition | None = None
) -> ConditionalRule:
    return ConditionalRule("SCMP_ACT_ALLOW", tuple(names.split()), args=args, includes=includes, excludes=excludes)


def _processes_without_namespaces() -> list[ConditionalRule]:
    """Return the rules for who may make processes, but no namespaces.

    clone3 has its flags behind a pointer, where no filter can look: it is said not to be there, and libc uses clone.
    """
    s390, admin = ("s390", "s390x"), ("CAP_SYS_ADMIN",)
    return [
        _allow("clone", Argument(0, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"), excludes=Condition(admin, s390)),
        _allow(
            "clone",
            Argument(1, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
            includes=Condition(arches=s390),
            excludes=Condition(admin),
        ),
        ConditionalRule("SCMP_ACT_ERRNO", ("clone3",), errno_ret=ENOSYS, excludes=Condition(admin)),
    ]
