"""HTTP proxies from the environment, by the rules that Go programs follow (x/net/http/httpproxy). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs by scheme of the request, and who is reached without one."""

    http: str = ""
    https: str = ""
    bypass: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """Read HTTP_PROXY, HTTPS_PROXY and NO_PROXY; the upper case name wins over the lower case one."""

        def read(name: str) -> str:
            return (environment.get(name) or environment.get(name.lower()) or "").strip()

        bypass = tuple(entry.strip().lower() for entry in read("NO_PROXY").split(",") if entry.strip())
        return cls(_with_scheme(read("HTTP_PROXY")), _with_scheme(read("HTTPS_PROXY")), bypass)

    def proxy_for(self, scheme: str, host: str, port: int) -> str:
        """The proxy's URL, "" to connect directly. Loopback is never proxied."""
        proxy = self.https if scheme == "https" else self.http
        return "" if not proxy or self._bypassed(host.strip("[]").lower().rstrip("."), port) else proxy

    def _bypassed(self, host: str, port: int) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_matches(entry, host, address, port) for entry in self.bypass)


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def _matches(entry: str, host: str, address: _IP | None, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, wanted_port = entry.rpartition(":") if _has_port(entry) else (entry, "", "")
    if wanted_port and wanted_port != str(port):
        return False
    name = name.strip("[]")
    if address is not None:
        return _address(name) == address
    if name.startswith(("*.", ".")):  # sub-domains only
        return host.endswith(name.removeprefix("*"))
    return host == name or host.endswith(f".{name}")


def _has_port(entry: str) -> bool:
    return (entry.startswith("[") and "]:" in entry) or entry.count(":") == 1


def _address(host: str) -> _IP | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _with_scheme(url: str) -> str:
    return f"http://{url}" if url and "://" not in url else url
