"""The one C module: syscalls that Python does not offer, and the two moments where no Python may run.

Built by setup.py (cffi API mode) into ``minirt.linux._native``. Every function returns what the kernel returned, with
errno left for ``ffi.errno``; there is no policy here. Syscalls go through syscall(2) by number, so that an older libc
than the kernel does not matter.
"""

from cffi import FFI

DECLARATIONS = """
long rt_clone3(uint64_t flags, int exit_signal, int cgroup_fd, int *pidfd);
long rt_unshare(int flags);
long rt_setns(int fd, int flags);
long rt_pidfd_open(int pid, unsigned int flags);
long rt_pidfd_send_signal(int pidfd, int signal);
long rt_inotify_init1(int flags);
long rt_inotify_add_watch(int fd, const char *path, uint32_t mask);
long rt_inotify_rm_watch(int fd, int watch);
long rt_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
long rt_umount2(const char *target, int flags);
long rt_pivot_root(const char *new_root, const char *put_old);
long rt_open_tree(int dirfd, const char *path, unsigned int flags);
long rt_move_mount(int from_fd, const char *from_path, int to_fd, const char *to_path, unsigned int flags);
long rt_fsopen(const char *type, unsigned int flags);
long rt_fsconfig(int fd, unsigned int command, const char *key, const char *value, int aux);
long rt_fsmount(int fd, unsigned int flags, unsigned int attributes);
long rt_mount_setattr(int dirfd, const char *path, unsigned int flags,
                      uint64_t set, uint64_t clear, uint64_t propagation, uint64_t userns_fd);
long rt_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
long rt_mknodat(int dirfd, const char *path, unsigned int mode, unsigned int major, unsigned int minor);
long rt_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable);
long rt_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable);
long rt_ambient(int operation, int capability);
long rt_close_range(unsigned int first, unsigned int last, unsigned int flags);
long rt_seccomp_available(void);
long rt_bpf(int command, const void *attributes, unsigned int size);
long rt_link_up(const char *name);
long rt_syncfs(int fd);
long rt_join_session_keyring(void);
long rt_personality(unsigned long persona);
long rt_ioprio_set(int which, int who, int priority);
long rt_sched_setattr(int pid, uint32_t policy, uint64_t flags, int32_t nice, uint32_t priority,
                      uint64_t runtime, uint64_t deadline, uint64_t period);
void rt_exec(const char *path, char *const argv[], char *const envp[],
             const void *filter, unsigned short filter_length, unsigned int filter_flags, int report_fd,
             unsigned int first_closed, int blank_fd);
long rt_can_leave_executable(void);
long rt_fs_type(int fd);
void rt_pause(const uint64_t *unused, unsigned int count);
"""

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/prctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

#define MOST_UNUSED 256
#define KERNEL_SIGSET_BYTES 8

struct rt_mount_attr { uint64_t attr_set, attr_clr, propagation, userns_fd; };


static long rt_clone3(uint64_t flags, int exit_signal, int cgroup_fd, int *pidfd)
{
    struct clone_args args = {0};
    args.flags = flags;
    args.pidfd = (uint64_t)(uintptr_t)pidfd;
    args.exit_signal = exit_signal;
    if (flags & CLONE_INTO_CGROUP)
        args.cgroup = cgroup_fd;
    return syscall(SYS_clone3, &args, sizeof args);
}

static long rt_unshare(int flags) { return syscall(SYS_unshare, flags); }
static long rt_setns(int fd, int flags) { return syscall(SYS_setns, fd, flags); }
static long rt_pidfd_open(int pid, unsigned int flags) { return syscall(SYS_pidfd_open, pid, flags); }

static long rt_pidfd_send_signal(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

static long rt_inotify_init1(int flags) { return syscall(SYS_inotify_init1, flags); }
static long rt_inotify_rm_watch(int fd, int watch) { return syscall(SYS_inotify_rm_watch, fd, watch); }
static long rt_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    return syscall(SYS_inotify_add_watch, fd, path, mask);
}

static long rt_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    return syscall(SYS_mount, source, target, type, flags, data);
}

static long rt_umount2(const char *target, int flags) { return syscall(SYS_umount2, target, flags); }
static long rt_pivot_root(const char *new_root, const char *put_old)
{
    return syscall(SYS_pivot_root, new_root, put_old);
}

static long rt_open_tree(int dirfd, const char *path, unsigned int flags)
{
    return syscall(SYS_open_tree, dirfd, path, flags);
}

static long rt_move_mount(int from_fd, const char *from_path, int to_fd, const char *to_path, unsigned int flags)
{
    return syscall(SYS_move_mount, from_fd, from_path, to_fd, to_path, flags);
}

static long rt_fsopen(const char *type, unsigned int flags) { return syscall(SYS_fsopen, type, flags); }

static long rt_fsconfig(int fd, unsigned int command, const char *key, const char *value, int aux)
{
    return syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static long rt_fsmount(int fd, unsigned int flags, unsigned int attributes)
{
    return syscall(SYS_fsmount, fd, flags, attributes);
}

static long rt_mount_setattr(int dirfd, const char *path, unsigned int flags,
                             uint64_t set, uint64_t clear, uint64_t propagation, uint64_t userns_fd)
{
    struct rt_mount_attr attributes = {set, clear, propagation, userns_fd};
    return syscall(SYS_mount_setattr, dirfd, path, flags, &attributes, sizeof attributes);
}

static long rt_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static long rt_mknodat(int dirfd, const char *path, unsigned int mode, unsigned int major, unsigned int minor)
{
    return mknodat(dirfd, path, mode, makedev(major, minor));
}

static long rt_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    return syscall(SYS_capset, &header, data);
}

static long rt_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    long result = syscall(SYS_capget, &header, data);
    if (result == 0) {
        *effective = (uint64_t)data[1].effective << 32 | data[0].effective;
        *permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
        *inheritable = (uint64_t)data[1].inheritable << 32 | data[0].inheritable;
    }
    return result;
}

static long rt_ambient(int operation, int capability)
{
    return prctl(PR_CAP_AMBIENT, operation, capability, 0, 0);
}

static long rt_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
    return syscall(SYS_close_range, first, last, flags);
}

static long rt_syncfs(int fd) { return syscall(SYS_syncfs, fd); }
static long rt_personality(unsigned long persona) { return syscall(SYS_personality, persona); }
static long rt_ioprio_set(int which, int who, int priority) { return syscall(SYS_ioprio_set, which, who, priority); }

static long rt_sched_setattr(int pid, uint32_t policy, uint64_t flags, int32_t nice, uint32_t priority,
                             uint64_t runtime, uint64_t deadline, uint64_t period)
{
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t times[3]; }
        attributes = {sizeof attributes, policy, flags, nice, priority, {runtime, deadline, period}};
    return syscall(SYS_sched_setattr, pid, &attributes, 0);
}

static long rt_seccomp_available(void)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}

static long rt_bpf(int command, const void *attributes, unsigned int size)
{
    return syscall(SYS_bpf, command, attributes, size);
}

/* Set IFF_UP on one interface of this network namespace: all that a sandbox without a network needs of netlink. */
static long rt_link_up(const char *name)
{
    struct ifreq request = {0};
    int saved, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    long result;
    if (fd < 0)
        return -1;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    result = ioctl(fd, SIOCGIFFLAGS, &request);
    if (result == 0) {
        request.ifr_flags |= IFF_UP;
        result = ioctl(fd, SIOCSIFFLAGS, &request);
    }
    saved = errno;
    close(fd);
    errno = saved;
    return result;
}

/* Every signal back to its default and none blocked: CPython ignores SIGPIPE and SIGXFSZ, and exec keeps what is
 * ignored. Past libc, which keeps real-time signals 32 and 33 to itself: whoever started us may have blocked them. */
static void default_signals(void)
{
    struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } action = {0};
    uint64_t none = 0;
    int number;
    for (number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, &action, NULL, sizeof none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

static void report(int fd, const char *step, int number)
{
    char line[96];
    int length = snprintf(line, sizeof line, "{\"type\":\"failed\",\"step\":\"%s\",\"errno\":%d}", step, number);
    if (write(fd, line, length) < 0)
        _exit(126);
}

/* A listener's descriptor must leave this process although the filter, once it is loaded, may forbid or hold back every
 * call that would send it. So a thread is there before, which no filter binds: main tells it the descriptor through
 * memory, it sends it and says so, and main makes no call between seccomp and execve, which ends the thread. */
struct handover { int report_fd; atomic_int listener, number, is_sent; };
enum { NOT_LOADED = -2, NOT_LOADABLE = -1 };

static int send_listener(int report_fd, int listener)
{
    char line[] = "{\"type\":\"listener\"}", space[CMSG_SPACE(sizeof listener)] = {0};
    struct iovec part = {line, sizeof line - 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(header), &listener, sizeof listener);
    return sendmsg(report_fd, &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

static int hand_over(void *argument)
{
    struct handover *to = argument;
    int listener, number;
    while ((listener = atomic_load(&to->listener)) == NOT_LOADED)
        sched_yield();
    number = listener == NOT_LOADABLE ? atomic_load(&to->number) : send_listener(to->report_fd, listener);
    if (number) {
        report(to->report_fd, "seccomp", number);
        _exit(125);
    }
    atomic_store(&to->is_sent, 1);
    return 0;
}

static void load_with_listener(const struct sock_fprog *program, unsigned int flags, int report_fd)
{
    static char stack[16384] __attribute__((aligned(64)));
    static struct handover to;
    long listener;
    to.report_fd = report_fd;
    atomic_store(&to.listener, NOT_LOADED);
    if (clone(hand_over, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, &to)
            < 0) {
        report(report_fd, "clone", errno);
        _exit(125);
    }
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
    atomic_store(&to.number, listener < 0 ? errno : 0);
    atomic_store(&to.listener, listener < 0 ? NOT_LOADABLE : (int)listener);
    while (!atomic_load(&to.is_sent))
        ;
}

static long rt_fs_type(int fd)
{
    struct statfs about;
    return fstatfs(fd, &about) ? -1 : (long)about.f_type;
}

/* Say whether the kernel lets a process name another file as the one it executes (CONFIG_CHECKPOINT_RESTORE). */
static long rt_can_leave_executable(void)
{
    unsigned int size = 0;
    return syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0);
}

static int note_segments(struct dl_phdr_info *info, size_t size, void *range)
{
    uintptr_t *found = range, page = sysconf(_SC_PAGESIZE);
    int at;
    for (at = 0; at < info->dlpi_phnum; at++)
        if (info->dlpi_phdr[at].p_type == PT_LOAD) {
            uintptr_t first = (info->dlpi_addr + info->dlpi_phdr[at].p_vaddr) & ~(page - 1);
            uintptr_t last = info->dlpi_addr + info->dlpi_phdr[at].p_vaddr + info->dlpi_phdr[at].p_memsz;
            found[0] = first < found[0] ? first : found[0];
            found[1] = last > found[1] ? (last + page - 1) & ~(page - 1) : found[1];
        }
    return 1; /* the program itself is the first to be told of */
}

/* Let /proc/self/exe be an empty file. A container may execute it, by a symlink or a #! line, and would then have the
 * host's interpreter in hand, to write to (CVE-2019-5736). The kernel wants nothing of the old file to be mapped any
 * more: so the interpreter is gone, and only this module, libc and the stack are left. The addresses mean nothing, but
 * must be in order; the execve to come sets them. It takes CAP_SYS_ADMIN. */
static long leave_executable(int blank_fd)
{
    uintptr_t range[2] = {UINTPTR_MAX, 0};
    uint64_t here = (uintptr_t)range;
    struct prctl_mm_map map = {here, here + 1, here, here, here, here, here, here, here, here, here, NULL, 0, blank_fd};
    dl_iterate_phdr(note_segments, range);
    if (munmap((void *)range[0], range[1] - range[0]))
        return -1;
    return syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

/* The last thing a stage does. From the filter on, only what it allows may be called, so no Python runs any more:
 * on success the program has replaced us and report_fd is closed (FD_CLOEXEC); on failure one message says why. */
static void rt_exec(const char *path, char *const argv[], char *const envp[],
                    const void *filter, unsigned short filter_length, unsigned int filter_flags, int report_fd,
                    unsigned int first_closed, int blank_fd)
{
    default_signals();
    syscall(SYS_close_range, first_closed, ~0u, CLOSE_RANGE_CLOEXEC);
    if (blank_fd >= 0 && leave_executable(blank_fd)) {
        report(report_fd, "prctl", errno);
        _exit(125);
    }
    if (filter_length) {
        struct sock_fprog program = {filter_length, (struct sock_filter *)filter};
        if (filter_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
            load_with_listener(&program, filter_flags, report_fd);
        } else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter_flags, &program)) {
            report(report_fd, "seccomp", errno);
            _exit(125);
        }
    }
    syscall(SYS_execve, path, argv, envp);
    report(report_fd, "execve", errno);
    _exit(127);
}

static long rt_join_session_keyring(void)
{
    return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

/* PID 1 of a pod's shared PID namespace: reap what is left to it, for ever. It blocks every signal and waits for one
 * only, so that nothing a container sends ends the pod. It gives its part of the pages back that it was forked with:
 * count times begin and length of what is unused, which may hold this very list. From there on there is no libc that
 * could miss something: what it keeps for a thread, where errno is, stays as well. */
static void rt_pause(const uint64_t *unused, unsigned int count)
{
    sigset_t all, children;
    uint64_t given[2 * MOST_UNUSED], here = (uint64_t)(uintptr_t)&errno;
    default_signals();
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    count = count < MOST_UNUSED ? count : MOST_UNUSED;
    memcpy(given, unused, count * 2 * sizeof *given);
    for (unsigned int i = 0; i < 2 * count; i += 2)
        if (here < given[i] || here >= given[i] + given[i + 1])
            syscall(SYS_madvise, given[i], given[i + 1], MADV_DONTNEED);
    for (;;)
        if (syscall(SYS_rt_sigtimedwait, &children, NULL, NULL, KERNEL_SIGSET_BYTES) > 0)
            while (syscall(SYS_wait4, -1, NULL, WNOHANG, NULL) > 0)
                ;
}
"""

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source("minirt.linux._native", SOURCE, py_limited_api=True)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
