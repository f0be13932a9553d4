"""Which network addresses lie on the public internet.

A list of URLs is somebody else's text: without this it could make the reader fetch from the machine itself, from its
network, or from a cloud's metadata service.
"""

import ipaddress

_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """True for an address that anybody may reach: not loopback, private, link-local, multicast or reserved.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) is judged by that as well. `address` is a
    numeric one, perhaps with a zone ("fe80::1%eth0"); ValueError for anything else.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_public_ipv4(ip)
    if ip.ipv4_mapped is not None:
        return _is_public_ipv4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_ipv4(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    carried = [ip.sixtofour, *(ip.teredo or ())]
    if any(inner is not None and not _is_public_ipv4(inner) for inner in carried):
        return False
    return ip in _GLOBAL_IPV6 and ip.is_global and not ip.is_multicast and not ip.is_reserved


def _is_public_ipv4(ip: ipaddress.IPv4Address) -> bool:
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_private)
