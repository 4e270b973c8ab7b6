"""Accounting files as kernels write them: one busy cgroup of each version."""

from __future__ import annotations

V1 = {
    ("cpuacct", "cpuacct.usage"): b"5123456789\n",
    ("cpuacct", "cpuacct.usage_user"): b"4000000000\n",
    ("cpuacct", "cpuacct.usage_sys"): b"1123456789\n",
    (
        "cpu",
        "cpu.stat",
    ): b"nr_periods 100\nnr_throttled 7\nthrottled_time 2500000000\nnr_bursts 0\nburst_time 0\n",
    ("cpu", "cpu.cfs_period_us"): b"100000\n",
    ("cpu", "cpu.cfs_quota_us"): b"20000\n",
    ("cpu", "cpu.shares"): b"1024\n",
    ("memory", "memory.usage_in_bytes"): b"52428800\n",
    ("memory", "memory.limit_in_bytes"): b"67108864\n",
    ("memory", "memory.memsw.limit_in_bytes"): b"134217728\n",
    ("memory", "memory.soft_limit_in_bytes"): b"9223372036854771712\n",
    ("memory", "memory.max_usage_in_bytes"): b"60000000\n",
    ("memory", "memory.kmem.usage_in_bytes"): b"1048576\n",
    ("memory", "memory.failcnt"): b"3\n",
    ("memory", "memory.oom_control"): b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    ("memory", "memory.stat"): (
        b"cache 100\nrss 200\npgfault 11\npgmajfault 1\nswap 5\n"
        b"hierarchical_memory_limit 67108864\nhierarchical_memsw_limit 134217728\n"
        b"total_cache 20971520\ntotal_rss 31457280\ntotal_mapped_file 4096\ntotal_swap 4194304\n"
        b"total_pgfault 1234\ntotal_pgmajfault 56\ntotal_inactive_file 10485760\n"
    ),
    ("pids", "pids.current"): b"12\n",
    ("pids", "pids.max"): b"max\n",
    ("blkio", "blkio.throttle.io_service_bytes_recursive"): (
        b"252:0 Read 4096\n252:0 Write 8192\n252:0 Sync 0\n252:0 Async 12288\n252:0 Discard 0\n"
        b"252:0 Total 12288\nTotal 12288\n"
    ),
    ("blkio", "blkio.throttle.io_serviced_recursive"): b"252:0 Read 1\n252:0 Write 2\nTotal 3\n",
    ("hugetlb", "hugetlb.2MB.usage_in_bytes"): b"2097152\n",
    ("hugetlb", "hugetlb.2MB.max_usage_in_bytes"): b"4194304\n",
}

PRESSURE = (
    b"some avg10=1.50 avg60=0.25 avg300=0.00 total=3000000\n"
    b"full avg10=0.50 avg60=0.00 avg300=0.00 total=1000000\n"
)

V2 = {
    ("", "cpu.stat"): (
        b"usage_usec 5123456\nuser_usec 4000000\nsystem_usec 1123456\ncore_sched.force_idle_usec 0\n"
        b"nr_periods 100\nnr_throttled 7\nthrottled_usec 2500000\nnr_bursts 0\nburst_usec 0\n"
    ),
    ("", "cpu.max"): b"20000 100000\n",
    ("", "cpu.weight"): b"39\n",
    ("", "memory.current"): b"52428800\n",
    ("", "memory.max"): b"67108864\n",
    ("", "memory.low"): b"0\n",
    ("", "memory.peak"): b"60000000\n",
    ("", "memory.swap.current"): b"4194304\n",
    ("", "memory.swap.max"): b"67108864\n",
    ("", "memory.events"): b"low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n",
    ("", "memory.stat"): (
        b"anon 31457280\nfile 20971520\nkernel 1048576\nkernel_stack 16384\npagetables 8192\n"
        b"file_mapped 4096\ninactive_anon 0\nactive_anon 31457280\ninactive_file 10485760\n"
        b"active_file 10485760\npgfault 1234\npgmajfault 56\n"
    ),
    ("", "pids.current"): b"12\n",
    ("", "pids.max"): b"1000\n",
    ("", "io.stat"): b"252:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n",
    ("", "hugetlb.2MB.current"): b"2097152\n",
    ("", "cpu.pressure"): PRESSURE,
    ("", "memory.pressure"): PRESSURE,
    ("", "io.pressure"): PRESSURE,
}


def reader(files):
    """What the parsers read with: no such file is None."""
    return lambda controller, name: files.get((controller, name))
