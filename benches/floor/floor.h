// What both programs ask of this host, and how they give up.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char hierarchies[16][32];
static int hierarchy_count;

static void check(int failed, const char *what) {
    if (failed) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
}

// Of version 1 one directory each, and the only one of version 2.
static void find_hierarchies(void) {
    FILE *all = fopen("/proc/self/cgroup", "r");
    char line[256], *controllers;
    while (fgets(line, sizeof line, all)) {
        controllers = strchr(line, ':') + 1;
        *strchr(controllers, ':') = 0;
        if (!*controllers) continue;
        if (!strncmp(controllers, "name=", 5)) controllers += 5;
        snprintf(hierarchies[hierarchy_count++], 32, "%.31s", controllers);
    }
    fclose(all);
}
