/* What a seccomp filter says to each system call, without making it. usage: verdicts FILE [stay]
 *
 * A second filter answers everything with SECCOMP_RET_TRACE: that is ENOSYS where nobody traces, and gives way to any
 * errno of the filter that was there before. So ENOSYS means "allowed". What the first filter answers with ENOSYS
 * itself is asked for by real calls, with arguments that no kernel takes.
 *
 * Lines: "abi number first-argument errno"; the last one is "end". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define X32 0x40000000L

static char answers[1 << 20];
static size_t filled;

static void note(const char *abi, long number, long first, long result)
{
    filled += snprintf(answers + filled, sizeof answers - filled, "%s %ld %ld %ld\n", abi, number, first, result);
}

static void ask(long number, long first)
{
    long result = syscall(number, first, 0L, 0L, 0L, 0L, 0L);
    note(number & X32 ? "x32" : "x86_64", number & ~X32, first, result < 0 ? errno : 0);
}

static void ask_i386(long number)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    note("i386", number, 0, result < 0 ? -result : 0);
}

static void call(long number)
{
    long result = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
    note("real", number, -1, result < 0 ? errno : 0);
}

static int answer_everything(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* What must go on, and the two calls that only a uprobe's trampoline may make, which the kernel filters not at all. */
static int is_left_out(long number)
{
    return number == SYS_write || number == SYS_exit_group || number == 335 || number == 336;
}

static void probe(int file)
{
    static const long personalities[] = {0x8, 0x20000, 0x20008, 0x40000, 0xffffffff};
    long number;
    int bit;
    call(SYS_clone3);
    for (number = 451; number < 480; number++)
        call(number);
    if (answer_everything())
        _exit(1);
    for (number = 0; number < 600; number++)
        if (!is_left_out(number)) {
            ask(number, 0);
            ask(number | X32, 0);
        }
    for (number = 0; number < 600; number++)
        if (!is_left_out(number))
            ask_i386(number);
    for (number = 1; number < 64; number++)
        ask(SYS_socket, number);
    for (bit = 0; bit < 32; bit++)
        ask(SYS_clone, 1L << bit);
    for (bit = 0; bit < 5; bit++)
        ask(SYS_personality, personalities[bit]);
    strcpy(answers + filled, "end\n");
    _exit(write(file, answers, filled + 4) < 0);
}

int main(int count, char **words)
{
    int status, file = open(words[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        return 2;
    if (fork() == 0)
        probe(file);
    wait(&status);
    if (count > 2)
        pause();
    return status != 0;
}
