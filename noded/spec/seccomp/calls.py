"""Which system calls a container may make, by purpose: the facts behind the built-in profile.

Source: the kernel's call tables (arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h) up to
Linux 6.18 with the old calls of 32-bit x86 and arm, and each call's manual page. The rule: a call
is in if ordinary programs need it and it acts on the caller's own processes, files and
namespaces; it needs a capability if the kernel itself asks for that capability in the initial user
namespace; it is out if it is obsolete, or a large or much-attacked piece of kernel that ordinary
programs can do without. A name that libseccomp does not know on an architecture is skipped there
by every runtime, so one list serves all.
"""

from __future__ import annotations

from dataclasses import dataclass

EPERM = 1
ENOSYS = 38


@dataclass(frozen=True, slots=True)
class Group:
    """Calls with one purpose.

    Args:
        reason: why the group is in (or, in `DENIED`, out).
        calls: names, separated by space.
        capabilities: any one of these lets the group in; () = always in.
        errno: answer when the group is out.
        machines: only on these (uname machine names); () = everywhere.
    """

    name: str
    reason: str
    calls: str
    capabilities: tuple[str, ...] = ()
    errno: int = EPERM
    machines: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.calls.split()))


ALLOWED = (
    Group(
        "files",
        "opening, reading, writing and mapping files the process may open anyway",
        """open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev
        pwrite64 pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 flock ftruncate ftruncate64
        truncate truncate64 fallocate fadvise64 fadvise64_64 readahead fsync fdatasync sync syncfs
        sync_file_range sendfile sendfile64 copy_file_range splice tee ioctl memfd_create cachestat""",
    ),
    Group(
        "directories and links",
        "walking and changing the container's file tree; permissions are checked by the kernel as usual",
        """access faccessat faccessat2 chdir fchdir getcwd getdents getdents64 readdir mkdir mkdirat rmdir
        link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2
        mknod mknodat name_to_handle_at""",
    ),
    Group(
        "file attributes",
        "status, owners, modes, times and extended attributes of files",
        """stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs
        fstatfs64 chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32
        umask utime utimes futimesat utimensat utimensat_time64 getxattr lgetxattr fgetxattr getxattrat
        setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat removexattr
        lremovexattr fremovexattr removexattrat file_getattr file_setattr""",
    ),
    Group(
        "file events",
        "watching files; fanotify_mark needs a descriptor that only fanotify_init gives",
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark",
    ),
    Group(
        "asynchronous I/O",
        "POSIX AIO as databases use it; io_uring is in `DENIED`",
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    ),
    Group(
        "pipes and readiness",
        "event loops",
        """pipe pipe2 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create
        epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4""",
    ),
    Group(
        "memory",
        "the process's own address space, and its placement on NUMA nodes",
        """brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall
        munlockall remap_file_pages pkey_alloc pkey_free pkey_mprotect membarrier memfd_secret mseal
        map_shadow_stack get_mempolicy set_mempolicy mbind set_mempolicy_home_node""",
    ),
    Group(
        "processes",
        "starting programs and waiting for them; namespaces are kept out by flags, see `clone_rules`",
        """fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid
        getpgrp setpgid getsid setsid set_tid_address prctl pidfd_open pidfd_send_signal
        process_mrelease rseq restart_syscall""",
    ),
    Group(
        "identity",
        "set-user-ID programs and daemons that drop rights; the kernel checks every change",
        """getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32
        getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32
        setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid
        setfsgid32 setgroups setgroups32 capget capset""",
    ),
    Group(
        "self-restriction",
        "a process may always take rights away from itself",
        """seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr
        lsm_list_modules""",
    ),
    Group(
        "signals",
        "signals reach only processes the caller sees and may signal",
        """kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaction sigprocmask
        sigpending sigreturn sigsuspend signal sigaltstack pause""",
    ),
    Group(
        "threads and locks",
        "what C libraries build threads from",
        """futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue get_robust_list
        set_robust_list get_thread_area set_thread_area""",
    ),
    Group(
        "time",
        "reading clocks, sleeping, timers; adjtimex and clock_adjtime read without a capability",
        """time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
        clock_nanosleep clock_nanosleep_time64 nanosleep alarm getitimer setitimer timer_create
        timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 adjtimex
        clock_adjtime clock_adjtime64""",
    ),
    Group(
        "scheduling and limits",
        "priorities, affinity and limits of the caller's own processes",
        """sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam
        sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getpriority
        setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64 getrusage getcpu
        sysinfo uname""",
    ),
    Group(
        "sockets",
        """networking; families are chosen by `socket_rules`. socketcall, which old 32-bit x86 programs use
        for all of it, hides its arguments from the filter: there the families are not limited""",
        """accept accept4 bind connect getpeername getsockname getsockopt setsockopt listen recv recvfrom
        recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto shutdown socketcall socketpair""",
    ),
    Group(
        "System V and POSIX IPC",
        "confined to the pod's IPC namespace",
        """ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl
        shmdt shmget mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64
        mq_timedsend mq_timedsend_time64""",
    ),
    Group("randomness", "key generation", "getrandom"),
    Group(
        "debugging own processes",
        "debuggers and tracers; since Linux 4.8 a tracer cannot use it to get past this filter",
        "ptrace process_vm_readv process_vm_writev uprobe uretprobe",
    ),
    Group(
        "x86 segments",
        "thread-local storage and 16-bit code of C libraries and Wine",
        "arch_prctl modify_ldt",
        machines=("x86_64", "i686"),
    ),
    Group(
        "arm caches and breakpoints",
        "JIT compilers and thread-local storage of 32-bit arm",
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
        machines=("aarch64", "armv7l"),
    ),
    Group(
        "POWER contexts",
        "user contexts of the C library, and its spelling of sync_file_range",
        "swapcontext sync_file_range2 switch_endian",
        machines=("ppc64le",),
    ),
    Group(
        "s390 instructions",
        "runtime instrumentation, guarded storage and store-facility of JIT compilers",
        "s390_runtime_instr s390_guarded_storage s390_sthyi",
        machines=("s390x",),
    ),
    Group(
        "RISC-V caches",
        "JIT compilers, and asking for processor extensions",
        "riscv_flush_icache riscv_hwprobe",
        machines=("riscv64",),
    ),
)

WITH_CAPABILITY = (
    Group(
        "mounts",
        "changes the mount tree: a very large attack surface once a namespace is at hand",
        """mount umount umount2 pivot_root mount_setattr move_mount open_tree open_tree_attr fsconfig
        fsmount fsopen fspick""",
        ("CAP_SYS_ADMIN",),
    ),
    Group(
        "namespaces",
        "enters other namespaces, sets names of the UTS namespace",
        "setns sethostname setdomainname",
        ("CAP_SYS_ADMIN",),
    ),
    Group(
        "mount queries",
        "new ways to read the mount table; ENOSYS lets libraries fall back to /proc/self/mountinfo",
        "listmount statmount",
        ("CAP_SYS_ADMIN",),
        errno=ENOSYS,
    ),
    Group(
        "administration",
        "quotas, file events of whole file systems, profiling cookies",
        "quotactl quotactl_fd fanotify_init lookup_dcookie",
        ("CAP_SYS_ADMIN",),
    ),
    Group("BPF", "programs in the kernel", "bpf", ("CAP_BPF", "CAP_SYS_ADMIN")),
    Group(
        "performance events", "reads the node's counters", "perf_event_open", ("CAP_PERFMON", "CAP_SYS_ADMIN")
    ),
    Group("kernel log", "the node's messages", "syslog", ("CAP_SYSLOG", "CAP_SYS_ADMIN")),
    Group("handles", "opens files past the mount namespace", "open_by_handle_at", ("CAP_DAC_READ_SEARCH",)),
    Group("root directory", "chroot is a step of many escapes", "chroot", ("CAP_SYS_CHROOT",)),
    Group(
        "modules",
        "code in the kernel",
        "init_module finit_module delete_module",
        ("CAP_SYS_MODULE",),
    ),
    Group("reboot", "ends the pod's PID namespace or the node", "reboot", ("CAP_SYS_BOOT",)),
    Group("accounting", "process accounting of the node", "acct", ("CAP_SYS_PACCT",)),
    Group(
        "other processes",
        "looks into or changes processes beyond what debuggers need",
        "kcmp process_madvise pidfd_getfd",
        ("CAP_SYS_PTRACE",),
    ),
    Group("ports", "direct hardware access", "ioperm iopl", ("CAP_SYS_RAWIO",), machines=("x86_64", "i686")),
    Group(
        "PCI memory",
        "direct hardware access of s390",
        "s390_pci_mmio_read s390_pci_mmio_write",
        ("CAP_SYS_RAWIO",),
        machines=("s390x",),
    ),
    Group(
        "setting clocks",
        "there is one wall clock for the whole node",
        "clock_settime clock_settime64 settimeofday stime",
        ("CAP_SYS_TIME",),
    ),
    Group("terminals", "hangs up a terminal", "vhangup", ("CAP_SYS_TTY_CONFIG",)),
)

DENIED = (
    Group(
        "keyrings",
        "keys are bound to the user id, not to the container: pods of one uid would share them",
        "add_key keyctl request_key",
    ),
    Group(
        "io_uring",
        "its operations pass by this filter, and it has been the source of many kernel escapes",
        "io_uring_setup io_uring_enter io_uring_register",
    ),
    Group("kexec", "boots another kernel", "kexec_load kexec_file_load"),
    Group("swap", "swap is the node's", "swapon swapoff"),
    Group(
        "page placement",
        "moves pages of other processes; a process places its own with mbind",
        "migrate_pages move_pages",
    ),
    Group(
        "fault handling",
        "lets a process stop the kernel in the middle of a copy, which turns races into exploits",
        "userfaultfd",
    ),
    Group("gift of pages", "aliases page cache; nearly no program uses it", "vmsplice"),
    Group(
        "security attributes",
        "new way to change the process's label; ENOSYS lets libraries fall back to /proc/self/attr",
        "lsm_set_self_attr",
        errno=ENOSYS,
    ),
    Group(
        "obsolete",
        "kept by the kernel for programs of the nineties",
        """_sysctl bdflush nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname sgetmask ssetmask
        sysfs uselib ustat vm86 vm86old""",
    ),
)
