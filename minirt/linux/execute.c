/* Part of the C module (_build.py): from a process of ours to a program of the container's, where no Python may run. */

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
static long leave_executable(int blank_fd, const uintptr_t *range)
{
    uint64_t here = (uintptr_t)range;
    struct prctl_mm_map map = {here, here + 1, here, here, here, here, here, here, here, here, here, NULL, 0, blank_fd};
    if (munmap((void *)range[0], range[1] - range[0]))
        return -1;
    return syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

/* What becomes the program: its words, the filter, where to report, what to close, and what is to be unmapped. */
struct program {
    char *const *argv, *const *envp;
    struct sock_fprog filter;
    unsigned int filter_flags, first_closed;
    int report_fd, blank_fd;
    uintptr_t interpreter[2];
};

/* The last thing a stage does. From the filter on, only what it allows may be called, so no Python runs any more:
 * on success the program has replaced us and report_fd is closed (FD_CLOEXEC); on failure one message says why. */
static void become(const char *path, const struct program *program)
{
    default_signals();
    syscall(SYS_close_range, program->first_closed, ~0u, CLOSE_RANGE_CLOEXEC);
    if (program->blank_fd >= 0 && leave_executable(program->blank_fd, program->interpreter)) {
        report(program->report_fd, "prctl", errno);
        _exit(125);
    }
    if (program->filter.len) {
        if (program->filter_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
            load_with_listener(&program->filter, program->filter_flags, program->report_fd);
        } else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, program->filter_flags, &program->filter)) {
            report(program->report_fd, "seccomp", errno);
            _exit(125);
        }
    }
    syscall(SYS_execve, path, program->argv, program->envp);
    report(program->report_fd, "execve", errno);
    _exit(127);
}

static void rt_exec(const char *path, char *const argv[], char *const envp[],
                    const void *filter, unsigned short filter_length, unsigned int filter_flags, int report_fd,
                    unsigned int first_closed, int blank_fd)
{
    struct program program = {
        argv, envp, {filter_length, (struct sock_filter *)filter}, filter_flags, first_closed, report_fd, blank_fd,
        {UINTPTR_MAX, 0},
    };
    dl_iterate_phdr(note_segments, program.interpreter);
    become(path, &program);
}

/* System calls as data: calls.py lays them out. Two are no calls of the kernel's: the search for the program, and
 * whether the working directory can be reached from the root. */
struct rt_call {
    int64_t number;
    uint64_t arguments[6], excused;
    int64_t takes, result, begun, took;
};
enum { CALL_FIND = -1, CALL_IS_INSIDE = -2 };

static int why_not(const char *path)
{
    struct stat about;
    if (stat(path, &about))
        return errno;
    if (S_ISDIR(about.st_mode))
        return EISDIR;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) ? errno : 0;
}

/* Return which of the paths may be executed first; if none, minus why not: errno, and from bit 16 on which it was. */
static long find(const char *const *paths, const char **found)
{
    long why = ENOENT;
    int at, number;
    for (at = 0; paths[at]; at++) {
        if (!(number = why_not(paths[at]))) {
            *found = paths[at];
            return at;
        }
        if (why == ENOENT && number != ENOENT && number != ENOTDIR)
            why = number | (long)at << 16;
    }
    return -why;
}

static long is_inside(void)
{
    char path[4096];
    long length = syscall(SYS_getcwd, path, sizeof path);
    return length < 0 ? -errno : path[0] == '/' ? 0 : -ENOENT;
}

static int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static long make(const struct rt_call *call, const char **found)
{
    const uint64_t *of = call->arguments;
    long result;
    if (call->number == CALL_FIND)
        return find((const char *const *)(uintptr_t)of[0], found);
    if (call->number == CALL_IS_INSIDE)
        return is_inside();
    result = syscall(call->number, of[0], of[1], of[2], of[3], of[4], of[5]);
    return result < 0 ? -errno : result;
}

static int is_excused(const struct rt_call *call, long number)
{
    return call->excused == UINT64_MAX || (number < 64 && call->excused >> number & 1);
}

static const char *make_all(struct rt_call *calls, int count)
{
    const char *found = NULL;
    long result = 0;
    int at;
    for (at = 0; at < count; at++) {
        struct rt_call *call = &calls[at];
        if (call->takes)
            call->arguments[0] = result;
        call->begun = now();
        result = make(call, &found);
        call->took = now() - call->begun;
        call->result = result;
        if (result < 0 && !is_excused(call, -result))
            _exit(125);
    }
    return found;
}

static void advise(const uint64_t *ranges, int count, int advice)
{
    int at;
    for (at = 0; at < count; at++)
        madvise((void *)(uintptr_t)ranges[2 * at], ranges[2 * at + 1] - ranges[2 * at], advice);
}

/* Clone a child that makes calls and becomes a program. It never returns to Python, so what Python's memory holds
 * (apart: pairs of addresses) is not copied for it: there are no page tables to fill and to drop again at execve, and
 * the caller, too, has no page to copy afterwards. All that the child touches is this module, libc, its stack, and the
 * memory that the calls are in. No handler of the caller's runs in it: signals are blocked until they are default. */
static long rt_launch(uint64_t flags, int cgroup_fd, int *pidfd, uint64_t calls, int count,
                      uint64_t shared_bytes, const uint64_t *apart, int apart_count, uint64_t argv, uint64_t envp,
                      uint64_t filter, unsigned short filter_length, unsigned int filter_flags, int report_fd,
                      unsigned int first_closed, int blank_fd)
{
    struct program program = {
        (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp,
        {filter_length, (struct sock_filter *)(uintptr_t)filter}, filter_flags, first_closed, report_fd, blank_fd,
        {UINTPTR_MAX, 0},
    };
    uint64_t every = UINT64_MAX, before, shared[2] = {calls, calls + shared_bytes};
    long pid;
    int saved;
    dl_iterate_phdr(note_segments, program.interpreter);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &every, &before, sizeof every);
    advise(apart, apart_count, MADV_DONTFORK);
    advise(shared, 1, MADV_DOFORK); /* it may lie where Python has given memory back */
    pid = rt_clone3(flags, SIGCHLD, cgroup_fd, pidfd);
    if (pid == 0)
        become(make_all((struct rt_call *)(uintptr_t)calls, count), &program);
    saved = errno;
    advise(apart, apart_count, MADV_DOFORK);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
    errno = saved;
    return pid;
}

/* Return an address in this thread's own memory, where errno is. */
static uint64_t rt_thread_address(void) { return (uint64_t)(uintptr_t)&errno; }
