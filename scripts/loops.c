/* Two loops of scripts/bench-inside: how many system calls, or switches between two processes, there are in a second of its own
 * processor time; and `filtered PROGRAM...`, which runs a program under the smallest system call filter there is. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long calls(double end)
{
    long n = 0;
    for (; n % 1000 || now() < end; n++)
        syscall(SYS_getppid);
    return n;
}

static long switches(double end)
{
    int there[2], back[2];
    char c = 0;
    long n = 0;
    if (pipe(there) || pipe(back))
        return -1;
    if (fork() == 0) {
        close(there[1]);
        while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1)
            ;
        _exit(0);
    }
    for (; n % 100 || now() < end; n++)
        if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            return -1;
    return 2 * n;
}

static int filtered(char **argv)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
        execvp(argv[0], argv);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "filtered"))
        return filtered(argv + 2);
    if (argc != 3)
        return 2;
    double seconds = atof(argv[2]), end = now() + seconds;
    long n = strcmp(argv[1], "calls") ? switches(end) : calls(end);
    printf("%.0f\n", n / seconds);
    return n < 0;
}
