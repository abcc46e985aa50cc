"""The one C module: syscalls that Python does not offer, and (in execute.c) the moments where no Python may run.

Built by setup.py (cffi API mode) into ``minirt.linux._native``. Every function returns what the kernel returned, with
errno left for ``ffi.errno``; there is no policy here. Syscalls go through syscall(2) by number, so that an older libc
than the kernel does not matter.
"""

from pathlib import Path

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
long rt_launch(uint64_t flags, int cgroup_fd, int *pidfd, uint64_t calls, int count,
               uint64_t shared_bytes, const uint64_t *apart, int apart_count, uint64_t argv, uint64_t envp,
               uint64_t filter, unsigned short filter_length, unsigned int filter_flags, int report_fd,
               unsigned int first_closed, int blank_fd);
uint64_t rt_thread_address(void);
static const int SYS_setns;
static const int SYS_prctl;
static const int SYS_close_range;
static const int SYS_umask;
static const int SYS_keyctl;
static const int SYS_setsid;
static const int SYS_dup3;
static const int SYS_chdir;
static const int SYS_personality;
static const int SYS_ioprio_set;
static const int SYS_setgroups;
static const int SYS_setresuid;
static const int SYS_setresgid;
static const int SYS_capset;
static const int SYS_openat;
static const int SYS_openat2;
static const int SYS_write;
static const int CALL_FIND;
static const int CALL_IS_INSIDE;
long rt_can_leave_executable(void);
long rt_fs_type(int fd);
void rt_pause(const uint64_t *unused, unsigned int count);
long rt_back(int fd, uint64_t offset, uint64_t begin, uint64_t length);
long rt_give_back(int pagemap_fd, uint64_t begin, uint64_t length, uint64_t original);
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
#include <time.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

#define MOST_UNUSED 256
#define KERNEL_SIGSET_BYTES 8

/* proc_pid_pagemap(5) */
#define PAGE_PRESENT (1ULL << 63)
#define PAGE_OF_FILE (1ULL << 61)
#define PAGES_AT_A_TIME 256

static void default_signals(void);

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

static long rt_join_session_keyring(void)
{
    return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

/* PID 1 of a pod's shared PID namespace: reap what is left to it, for ever. It blocks every signal and waits for one
 * only, so that nothing a container sends ends the pod. It lets go of the memory that it was forked with: count times
 * begin and length of what is unused, which may hold this very list. From there on there is no libc that could miss
 * something: what it keeps for a thread, where errno is, stays as well. */
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
            syscall(SYS_munmap, given[i], given[i + 1]);
    for (;;)
        if (syscall(SYS_rt_sigtimedwait, &children, NULL, NULL, KERNEL_SIGSET_BYTES) > 0)
            while (syscall(SYS_wait4, -1, NULL, WNOHANG, NULL) > 0)
                ;
}

static int is_zero(const char *page, size_t size)
{
    return page[0] == 0 && !memcmp(page, page + 1, size - 1);
}

/* Map private memory from a file of the same content; pages of nothing but zeros stay holes. Return where the file
 * itself can be read. The range is whole pages, of heaps and data: this function's own are on the stack. */
static long rt_back(int fd, uint64_t offset, uint64_t begin, uint64_t length)
{
    size_t size = sysconf(_SC_PAGESIZE);
    void *original, *memory = (void *)(uintptr_t)begin;
    if (ftruncate(fd, offset + length))
        return -1;
    for (uint64_t at = 0; at < length; at += size)
        if (!is_zero((char *)memory + at, size) && pwrite(fd, (char *)memory + at, size, offset + at) != (ssize_t)size)
            return -1;
    original = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, offset);
    if (original == MAP_FAILED)
        return -1;
    if (mmap(memory, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, offset) == MAP_FAILED)
        return -1;
    return (long)(uintptr_t)original;
}

/* Let go of the pages of a range that are this process's own copies, and equal the original's. Return how many. No
 * handler may write into one between the look and the leave. */
static long rt_give_back(int pagemap_fd, uint64_t begin, uint64_t length, uint64_t original)
{
    size_t size = sysconf(_SC_PAGESIZE);
    uint64_t entries[PAGES_AT_A_TIME], every = UINT64_MAX, before;
    ssize_t got = 0;
    long given = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &every, &before, sizeof every);
    for (uint64_t at = 0; at < length && got >= 0; at += PAGES_AT_A_TIME * size) {
        got = pread(pagemap_fd, entries, sizeof entries, (begin + at) / size * sizeof *entries);
        for (int64_t i = 0; i < got / (ssize_t)sizeof *entries && at + i * size < length; i++) {
            void *copy = (void *)(uintptr_t)(begin + at + i * size);
            const void *first = (void *)(uintptr_t)(original + at + i * size);
            if ((entries[i] & (PAGE_PRESENT | PAGE_OF_FILE)) == PAGE_PRESENT && !memcmp(copy, first, size))
                given += !madvise(copy, size, MADV_DONTNEED);
        }
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
    return got < 0 ? -1 : given;
}
"""

EXECUTE = (Path(__file__).parent / "execute.c").read_text()

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source("minirt.linux._native", SOURCE + EXECUTE, py_limited_api=True)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
