// What the kernel alone takes for that which every VPS has, the longer the more there are: `scripts/bench floor [COUNT]`. No condo in it.
// Each round makes control groups, a process in namespaces of its own, a pair of interfaces into it, and in it the mounts that a system
// needs, and leaves them standing. Printed are medians of the first hundred rounds and of the last hundred, what they are to each other, and
// what memory one of all takes.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "floor.h"

enum { GROUPS, PROCESS, INTERFACES, TMPFS, PROC, SYSFS, CGROUPFS, PARTS };
static const char *NAMES[PARTS + 1] = {"control groups", "process and namespaces", "pair of interfaces", "tmpfs", "procfs",
                                       "sysfs", "cgroup file systems", "all of it"};
enum { WINDOW = 100, NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP };

// Processor time: what else the machine does is none of it.
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// In KiB.
static long memory(const char *key) {
    char line[128];
    long value = 0;
    FILE *all = fopen("/proc/meminfo", "r");
    check(!all, "/proc/meminfo");
    while (fgets(line, sizeof line, all))
        if (!strncmp(line, key, strlen(key))) value = atol(line + strlen(key));
    fclose(all);
    return value;
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    check(write(fd, text, strlen(text)) < 0, path);
    close(fd);
}

static void group(char *path, int hierarchy, int n) {
    const char *name = hierarchy_count ? hierarchies[hierarchy] : "";
    sprintf(path, n < 0 ? "/sys/fs/cgroup/%s/floor" : "/sys/fs/cgroup/%s/floor/%d", name, n);
}

// Cpusets of version 1 are born with what their parent has where it says so, and empty elsewhere.
static void make_groups(int n) {
    static const char *values[][2] = {{"cpuset.cpus", "0"}, {"cpuset.mems", "0"}, {"cgroup.clone_children", "1"}};
    char path[128], file[160];
    for (int h = 0; h < hierarchy_count || h < 1; h++) {
        group(path, h, n);
        check(mkdir(path, 0755) && errno != EEXIST, path);
        for (int v = 0; v < 3 && n < 0 && !strcmp(hierarchies[h], "cpuset"); v++) {
            sprintf(file, "%s/%s", path, values[v][0]);
            write_file(file, values[v][1]);
        }
    }
}

static void remove_groups(int n) {
    char path[128];
    for (int h = 0; h < hierarchy_count || h < 1; h++) group(path, h, n), rmdir(path);
}

static struct rtattr *add(struct nlmsghdr *h, int kind, const void *data, int length) {
    struct rtattr *a = (void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));
    a->rta_type = kind, a->rta_len = RTA_LENGTH(length);
    memcpy(RTA_DATA(a), data, length);
    h->nlmsg_len = NLMSG_ALIGN(h->nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static void end(struct nlmsghdr *h, struct rtattr *a) { a->rta_len = (char *)h + h->nlmsg_len - (char *)a; }

static void make_pair(int n, pid_t to) {
    static int fd = -1;
    if (fd < 0) fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    char buffer[1024] = {0}, name[IFNAMSIZ];
    struct nlmsghdr *h = (void *)buffer;
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    h->nlmsg_len = NLMSG_LENGTH(sizeof link), h->nlmsg_type = RTM_NEWLINK;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    memcpy(NLMSG_DATA(h), &link, sizeof link);
    sprintf(name, "fl%d", n);
    add(h, IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *info = add(h, IFLA_LINKINFO, "", 0);
    add(h, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = add(h, IFLA_INFO_DATA, "", 0);
    // The kernel brings an end up only when it has the other.
    link.ifi_flags = link.ifi_change = 0;
    struct rtattr *peer = add(h, VETH_INFO_PEER, &link, sizeof link);
    add(h, IFLA_IFNAME, "eth0", 5);
    add(h, IFLA_NET_NS_PID, &to, 4);
    end(h, peer), end(h, data), end(h, info);
    check(send(fd, buffer, h->nlmsg_len, 0) < 0, "netlink");
    check(recv(fd, buffer, sizeof buffer, 0) < 0, "netlink");
    errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
    check(errno, "veth");
}

// Inside, once the interface is there: the mounts, and then nothing until it is killed.
static void live(int told, int tell) {
    double spent[PARTS] = {0}, before;
    char byte, path[64];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(read(told, &byte, 1) != 1, "wait");
    check(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "private mounts");
    before = now(), check(mount("none", "/mnt", "tmpfs", 0, 0), "tmpfs"), spent[TMPFS] = now() - before;
    check(mkdir("/mnt/proc", 0755) || mkdir("/mnt/sys", 0755) || mkdir("/mnt/cg", 0755), "mkdir");
    before = now(), check(mount("none", "/mnt/proc", "proc", 0, 0), "proc"), spent[PROC] = now() - before;
    before = now(), check(mount("none", "/mnt/sys", "sysfs", 0, 0), "sysfs"), spent[SYSFS] = now() - before;
    for (int h = 0; h < hierarchy_count || h < 1; h++) {
        const char *name = hierarchies[h];
        char options[48];
        sprintf(options, strcmp(name, "systemd") ? "%s" : "none,name=%s", name);
        sprintf(path, "/mnt/cg/%d", h), mkdir(path, 0755);
        before = now();
        check(mount("none", path, hierarchy_count ? "cgroup" : "cgroup2", 0, hierarchy_count ? options : 0), name);
        spent[CGROUPFS] += now() - before;
    }
    check(write(tell, spent, sizeof spent) != sizeof spent, "tell");
    for (;;) pause();
}

static pid_t make(int n, double spent[PARTS + 1]) {
    int down[2], up[2];
    double before = now();
    check(pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC), "pipe");
    make_groups(n);
    double groups = now() - before;
    before = now();
    pid_t child = syscall(SYS_clone, NAMESPACES | SIGCHLD, 0, 0, 0, 0);
    check(child < 0, "clone");
    if (!child) live(down[0], up[1]);
    double process = now() - before;
    before = now();
    make_pair(n, child);
    double pair = now() - before;
    check(write(down[1], "", 1) != 1 || read(up[0], spent, PARTS * sizeof *spent) != PARTS * sizeof *spent, "talk");
    spent[GROUPS] = groups, spent[PROCESS] = process, spent[INTERFACES] = pair;
    for (int part = 0; part < PARTS; part++) spent[PARTS] += spent[part];
    close(down[0]), close(down[1]), close(up[0]), close(up[1]);
    return child;
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static double median(double (*all)[PARTS + 1], int from, int part) {
    double some[WINDOW];
    for (int i = 0; i < WINDOW; i++) some[i] = all[from + i][part];
    qsort(some, WINDOW, sizeof *some, compare);
    return some[WINDOW / 2];
}

int main(int count_of_words, char **words) {
    int count = count_of_words > 1 ? atoi(words[1]) : 4000;
    check(count < 2 * WINDOW && (errno = EINVAL), "COUNT");
    double(*spent)[PARTS + 1] = calloc(count, sizeof *spent);
    pid_t *children = calloc(count, sizeof *children);
    find_hierarchies();
    // Interfaces of this host are none of its business.
    check(unshare(CLONE_NEWNET), "unshare");
    make_groups(-1);
    long available = memory("MemAvailable:"), slab = memory("Slab:");
    for (int n = 0; n < count; n++) children[n] = make(n, spent[n]);
    printf("%-24s %12s %12s\n", "milliseconds", "first 100", "last 100");
    for (int part = 0; part <= PARTS; part++) {
        double first = median(spent, 0, part), last = median(spent, count - WINDOW, part);
        printf("%-24s %12.2f %12.2f %8.2f times\n", NAMES[part], first, last, last / first);
    }
    available -= memory("MemAvailable:"), slab -= memory("Slab:");
    printf("KiB each: %ld, of that slab %ld\n", available / count, -slab / count);
    fflush(stdout);
    for (int n = 0; n < count; n++) kill(children[n], SIGKILL);
    for (int n = 0; n < count; n++) waitpid(children[n], 0, 0);
    for (int n = 0; n < count; n++) remove_groups(n);
    remove_groups(-1);
}
