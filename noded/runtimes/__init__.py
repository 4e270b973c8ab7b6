"""Runtime drivers: what plugins configure to make a runtime handler.

`OciRuntime` drives programs with runc's command line. conmon watches each container, keeps its
log and records its exit, so containers outlive the daemon.
"""
