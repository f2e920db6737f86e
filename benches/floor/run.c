// What the kernel alone takes for `run` of the config that `runc spec` writes: `run --root DIR run --bundle DIR ID`, one of those who take part
// in `scripts/bench`. The same namespaces, mounts, device nodes, covers, control groups, device rules, capabilities, state file and removal, on
// hosts of either version of control groups; on version 2 without a device program. Nothing is read, checked, made safe against a hostile
// image or undone after a failure.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor.h"

enum { PATH = 256 };
enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC };
static const char *MASKED[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                               "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"};
static const char *READONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const char *ALLOWED[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
                                "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"};
static const struct { const char *name; int major, minor; } NODES[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7},
                                                                       {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
static const char *LINKS[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
                                 {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}};
// CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE.
enum { KEPT = 1 << 5 | 1 << 10 | 1 << 29 };

static const char *id;

static void write_at(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd < 0 || write(fd, text, strlen(text)) < 0, path);
    close(fd);
}

static void group(char *path, int h) { snprintf(path, PATH, "/sys/fs/cgroup/%.31s/%.128s", hierarchies[h], id); }

static void make_groups(void) {
    char path[PATH];
    for (int h = 0; h < hierarchy_count; h++) {
        group(path, h);
        check(mkdir(path, 0755), path);
        if (!strcmp(hierarchies[h], "devices")) {
            write_at(path, "devices.deny", "a");
            for (unsigned n = 0; n < sizeof ALLOWED / sizeof *ALLOWED; n++) write_at(path, "devices.allow", ALLOWED[n]);
        }
        if (!strcmp(hierarchies[h], "cpuset")) write_at(path, "cpuset.cpus", "0"), write_at(path, "cpuset.mems", "0");
    }
}

static void enter_groups(void) {
    char path[PATH];
    for (int h = 0; h < hierarchy_count; h++) {
        group(path, h);
        write_at(path, *hierarchies[h] ? "tasks" : "cgroup.procs", "0");
    }
}

static void put(const char *kind, const char *at, int flags, const char *options) {
    mkdir(at, 0755);
    check(mount(kind, at, kind, flags, options), at);
}

static void mount_groups(void) {
    enum { FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC };
    if (!*hierarchies[0]) {
        put("cgroup2", "sys/fs/cgroup", FLAGS | MS_RDONLY, 0);
        return;
    }
    put("tmpfs", "sys/fs/cgroup", FLAGS, "mode=755");
    for (int h = 0; h < hierarchy_count; h++) {
        char from[PATH], at[PATH];
        group(from, h);
        snprintf(at, PATH, "sys/fs/cgroup/%.31s", hierarchies[h]);
        mkdir(at, 0755);
        check(mount(from, at, 0, MS_BIND, 0), at);
        check(mount(0, at, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | FLAGS, 0), at);
    }
    check(mount(0, "sys/fs/cgroup", 0, MS_BIND | MS_REMOUNT | MS_RDONLY | FLAGS, 0), "sys/fs/cgroup");
}

static void make_dev(void) {
    char path[64];
    put("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    put("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    put("tmpfs", "dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
    put("mqueue", "dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
    for (unsigned n = 0; n < sizeof NODES / sizeof *NODES; n++) {
        sprintf(path, "dev/%s", NODES[n].name);
        check(mknod(path, S_IFCHR | 0666, makedev(NODES[n].major, NODES[n].minor)), path);
        chmod(path, 0666);
    }
    for (unsigned n = 0; n < sizeof LINKS / sizeof *LINKS; n++) check(symlink(LINKS[n][0], LINKS[n][1]), LINKS[n][1]);
}

static void cover(void) {
    struct stat found;
    for (unsigned n = 0; n < sizeof MASKED / sizeof *MASKED; n++) {
        if (stat(MASKED[n], &found)) continue;
        if (S_ISDIR(found.st_mode)) check(mount("tmpfs", MASKED[n], "tmpfs", MS_RDONLY, 0), MASKED[n]);
        else check(mount("/dev/null", MASKED[n], 0, MS_BIND, 0), MASKED[n]);
    }
    for (unsigned n = 0; n < sizeof READONLY / sizeof *READONLY; n++) {
        if (stat(READONLY[n], &found)) continue;
        check(mount(READONLY[n], READONLY[n], 0, MS_BIND, 0), READONLY[n]);
        check(mount(0, READONLY[n], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), READONLY[n]);
    }
}

static void confine(void) {
    struct rlimit files = {1024, 1024};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{KEPT, KEPT, 0}, {0, 0, 0}};
    check(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (capability > 31 || !(KEPT >> capability & 1)) check(prctl(PR_CAPBSET_DROP, capability), "bounding set");
    check(syscall(SYS_capset, &header, sets), "capset");
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
}

static void child(const char *bundle, int go) {
    char root[512], byte;
    snprintf(root, sizeof root, "%s/rootfs", bundle);
    enter_groups();
    check(read(go, &byte, 1) < 0, "wait");
    check(sethostname("runc", 4), "sethostname");
    check(mount(0, "/", 0, MS_SLAVE | MS_REC, 0), "slave");
    check(mount(root, root, 0, MS_BIND | MS_REC, 0), root);
    check(chdir(root), root);
    put("proc", "proc", 0, 0);
    make_dev();
    put("sysfs", "sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0);
    mount_groups();
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH) || chdir("/"), "leave the old root");
    check(mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), "read-only root");
    cover();
    confine();
    execl("/bin/true", "/bin/true", (char *)0);
    check(1, "/bin/true");
}

int main(int argc, char **argv) {
    if (argc != 7) return fputs("floor: --root DIR run --bundle DIR ID\n", stderr), 2;
    const char *states = argv[2], *bundle = argv[5];
    char dir[PATH], state[300], unfinished[300], text[PATH];
    int go[2], status;
    id = argv[6];
    find_hierarchies();
    // Version 2 alone has one, without a name.
    if (!hierarchy_count) hierarchies[hierarchy_count++][0] = 0;
    mkdir(states, 0711);
    snprintf(dir, sizeof dir, "%s/%s", states, id);
    snprintf(state, sizeof state, "%s/state.json", dir);
    snprintf(unfinished, sizeof unfinished, "%s/state.tmp", dir);
    check(mkdir(dir, 0711) || pipe2(go, O_CLOEXEC), dir);
    make_groups();
    struct clone_args args = {.flags = NAMESPACES | (*hierarchies[0] ? 0 : CLONE_NEWCGROUP), .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    check(pid < 0, "clone3");
    if (!pid) child(bundle, go[0]);
    int fd = open(unfinished, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int length = snprintf(text, sizeof text, "{\"ociVersion\":\"1.2.0\",\"id\":\"%.32s\",\"pid\":%d,\"status\":\"running\"}", id, pid);
    check(fd < 0 || write(fd, text, length) < 0 || rename(unfinished, state), state);
    check(write(go[1], "", 1) < 0 || waitpid(pid, &status, 0) < 0, "wait");
    for (int h = 0; h < hierarchy_count; h++) group(text, h), check(rmdir(text), text);
    check(unlink(state) || rmdir(dir), dir);
    return WEXITSTATUS(status);
}
