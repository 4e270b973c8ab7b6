"""CNI results of every specification version: the pod's addresses and the form of `prevResult`. Pure.

Spec: 1.1.0 section 5; 0.2.0 "Result" for the old form with `ip4` and `ip6`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from noded.errors import FailedPrecondition
from noded.network.version import at_least


def conform(raw: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return `raw` in the form that plugins of `version` understand as `prevResult`.

    A missing cniVersion is filled in. Results in the old form (ip4, ip6) are rewritten when the
    list speaks 0.3.0 or newer, and addresses get the `version` that 0.3.x and 0.4.0 require.
    """
    result = {**raw, "cniVersion": version}
    if not at_least(version, "0.3.0"):
        return result
    if not result.get("ips"):
        old = [result[key] for key in ("ip4", "ip6") if isinstance(result.get(key), Mapping)]
        if old:
            result["ips"] = [_from_old(entry) for entry in old]
            result["routes"] = [route for entry in old for route in entry.get("routes") or []]
    for key in ("ip4", "ip6"):
        result.pop(key, None)
    if not at_least(version, "1.0.0") and isinstance(result.get("ips"), list):
        result["ips"] = [_with_family(entry) for entry in result["ips"]]
    return result


def pod_addresses(result: Mapping[str, Any], ifname: str) -> tuple[str, ...]:
    """Return the pod's IP addresses in the plugin's order, without their prefix lengths.

    Addresses of interfaces on the node (no `sandbox`) are not the pod's. Where the result names an
    interface `ifname` in the sandbox, only its addresses count; else all that may be the pod's.

    Raises: FailedPrecondition when an address cannot be parsed.
    """
    interfaces = result.get("interfaces")
    interfaces = interfaces if isinstance(interfaces, list) else []
    own: list[str] = []
    others: list[str] = []
    for address, index in _entries(result):
        if index is None:
            # Nobody said otherwise: the address belongs to what ADD was asked for.
            own.append(address)
        elif 0 <= index < len(interfaces) and isinstance(interfaces[index], Mapping):
            if interfaces[index].get("sandbox"):
                (own if interfaces[index].get("name") == ifname else others).append(address)
        else:
            others.append(address)
    return tuple(dict.fromkeys(own or others))


def _entries(result: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    for entry in _list(result, "ips"):
        if not isinstance(entry, Mapping):
            raise FailedPrecondition(f"the CNI result has a malformed entry in ips: {entry!r}")
        index = entry.get("interface")
        yield _plain(entry.get("address")), index if type(index) is int else None
    for key in ("ip4", "ip6"):
        entry = result.get(key)
        if isinstance(entry, Mapping):
            yield _plain(entry.get("ip")), None


def _list(result: Mapping[str, Any], key: str) -> list[Any]:
    value = result.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise FailedPrecondition(f"the CNI result's {key} is not a list: {value!r}")
    return value


def _plain(address: object) -> str:
    try:
        if not isinstance(address, str):
            raise ValueError(address)
        return str(ipaddress.ip_interface(address).ip)
    except ValueError:
        raise FailedPrecondition(f"the CNI result has an address that is none: {address!r}") from None


def _from_old(entry: Mapping[str, Any]) -> dict[str, Any]:
    address = {"address": entry.get("ip")}
    return {**address, "gateway": entry["gateway"]} if entry.get("gateway") else address


def _with_family(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or entry.get("version"):
        return entry
    return {**entry, "version": "6" if ":" in str(entry.get("address")) else "4"}
