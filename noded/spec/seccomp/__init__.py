"""Seccomp: the built-in profile, profiles of administrators, and which one a container gets."""
