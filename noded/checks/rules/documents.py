"""Configuration of images that other programs share: registries, trust, credentials."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn


def judge(facts: Facts) -> Iterator[Result]:
    """Whether each file can be read as what it is."""
    documents = facts.documents
    if documents.registries_problem:
        yield fail(
            "images.registries",
            documents.registries_problem,
            "no image can be pulled: a broken file is never half a configuration",
            f"correct {documents.registries_path}; see containers-registries.conf(5)",
        )
    elif documents.registries_ignored:
        yield warn(
            "images.registries",
            f"unknown keys: {', '.join(documents.registries_ignored)}",
            "noded ignores them; a misspelt key changes nothing",
            f"correct {documents.registries_path}; see containers-registries.conf(5)",
        )
    else:
        yield ok("images.registries", documents.registries_path)
    for problem in documents.hosts_problems:
        yield fail(
            "images.hosts",
            problem,
            "nothing can be pulled from this registry",
            "correct the file; its format is that of containerd's hosts.toml",
        )
    if documents.policy_problem:
        yield fail(
            "images.policy",
            documents.policy_problem,
            "no image can be pulled: without a readable policy nothing is trusted",
            f"correct {documents.policy_path}; see containers-policy.json(5)",
        )
    elif documents.policy_path:
        yield ok("images.policy", documents.policy_path)
    if documents.auth_problem:
        yield warn(
            "images.credentials",
            documents.auth_problem,
            "pulls that need these credentials fail",
            f"correct {documents.auth_path}; see containers-auth.json(5)",
        )
    elif documents.auth_path:
        yield ok("images.credentials", documents.auth_path)
