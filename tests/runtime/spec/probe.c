/* Makes raw system calls and prints "name errno" for each (0 = success): what a filter let through. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *name, long result) { printf("%s %d\n", name, result < 0 ? errno : 0); }

/* Fork with flags; the child ends at once. */
static void clone_with(const char *name, unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    report(name, pid);
    if (pid > 0) waitpid(pid, 0, 0);
}

static void unshare_with(const char *name, unsigned long flags) {
    fflush(stdout);
    pid_t pid = fork(); /* a success must not change this process */
    if (pid == 0) {
        long result = syscall(SYS_unshare, flags);
        report(name, result);
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, 0, 0);
}

static void socket_of(const char *name, unsigned long family) {
    long fd = syscall(SYS_socket, family, 2, 0);
    report(name, fd);
    if (fd >= 0) close(fd);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    clone_with("clone", 0);
    clone_with("clone_newuser", CLONE_NEWUSER);
    clone_with("clone_newns", CLONE_NEWNS);
    clone_with("clone_newpid_newnet", CLONE_NEWPID | CLONE_NEWNET);
    clone_with("clone_newuser_high_bit", CLONE_NEWUSER | (1UL << 40));
    unshare_with("unshare_fs", CLONE_FS);
    unshare_with("unshare_newuser", CLONE_NEWUSER);
    unshare_with("unshare_newtime", 0x80);
    unshare_with("unshare_newcgroup", CLONE_NEWCGROUP);
    report("clone3", syscall(435, 0, 0));
    socket_of("socket_unix", 1);
    socket_of("socket_inet", 2);
    socket_of("socket_inet6", 10);
    socket_of("socket_netlink", 16);
    socket_of("socket_alg", 38);
    socket_of("socket_vsock", 40);
    socket_of("socket_alg_high_bit", 38UL | (1UL << 32));
    socket_of("socket_vsock_high_bit", 40UL | (1UL << 33));
    report("personality_query", syscall(SYS_personality, 0xffffffffUL) == -1 ? -1 : 0);
    report("personality_no_randomize", syscall(SYS_personality, 0x40000UL));
    report("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    report("io_uring_setup", syscall(425, 1, 0));
    report("userfaultfd", syscall(SYS_userfaultfd, 0));
    report("mount", syscall(SYS_mount, 0, 0, 0, 0, 0));
    report("setns", syscall(SYS_setns, -1, 0));
    report("bpf", syscall(SYS_bpf, 0, 0, 0));
    report("perf_event_open", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    report("sethostname", syscall(SYS_sethostname, "probe", 5));
    report("vmsplice", syscall(SYS_vmsplice, -1, 0, 0, 0));
    report("statmount", syscall(457, 0, 0, 0, 0));
    report("no_such_call", syscall(1999));
    report("getpid", syscall(SYS_getpid));
    return 0;
}
