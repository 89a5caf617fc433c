"""libslirp's C interface by ctypes: its structures and functions, and whether this host has it."""

from __future__ import annotations

import ctypes
import re
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, NamedTuple

LIBRARY = "libslirp.so.0"
OLDEST = (4, 7)
"""The first that forwards from unix sockets and has version 4 of the configuration."""
CONFIG_VERSION = 4


class Support(NamedTuple):
    """Whether this host's libslirp will do."""

    works: bool
    version: str
    """As the library says it; empty where it cannot be loaded."""
    detail: str
    """Why not, as the rest of a sentence; empty where it works."""


class In6(ctypes.Structure):
    """`struct in6_addr`."""

    _fields_ = (("bytes", ctypes.c_uint8 * 16),)


class Config(ctypes.Structure):
    """`SlirpConfig`, version 4."""

    _fields_ = (
        ("version", c_uint32),
        ("restricted", c_int),
        ("in_enabled", c_bool),
        ("vnetwork", c_uint32),
        ("vnetmask", c_uint32),
        ("vhost", c_uint32),
        ("in6_enabled", c_bool),
        ("vprefix_addr6", In6),
        ("vprefix_len", ctypes.c_uint8),
        ("vhost6", In6),
        ("vhostname", c_char_p),
        ("tftp_server_name", c_char_p),
        ("tftp_path", c_char_p),
        ("bootfile", c_char_p),
        ("vdhcp_start", c_uint32),
        ("vnameserver", c_uint32),
        ("vnameserver6", In6),
        ("vdnssearch", POINTER(c_char_p)),
        ("vdomainname", c_char_p),
        ("if_mtu", c_size_t),
        ("if_mru", c_size_t),
        ("disable_host_loopback", c_bool),
        ("enable_emu", c_bool),
        ("outbound_addr", c_void_p),
        ("outbound_addr6", c_void_p),
        ("disable_dns", c_bool),
        ("disable_dhcp", c_bool),
    )


SEND = CFUNCTYPE(ctypes.c_ssize_t, c_void_p, c_size_t, c_void_p)
MESSAGE = CFUNCTYPE(None, c_char_p, c_void_p)
CLOCK = CFUNCTYPE(ctypes.c_int64, c_void_p)
TIMER_NEW = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)
TIMER_FREE = CFUNCTYPE(None, c_void_p, c_void_p)
TIMER_MOD = CFUNCTYPE(None, c_void_p, ctypes.c_int64, c_void_p)
DESCRIPTOR = CFUNCTYPE(None, c_int, c_void_p)
NOTIFY = CFUNCTYPE(None, c_void_p)
COMPLETED = CFUNCTYPE(None, c_void_p, c_void_p)
TIMER_NEW_OPAQUE = CFUNCTYPE(c_void_p, c_int, c_void_p, c_void_p)
ADD_POLL = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
GET_EVENTS = CFUNCTYPE(c_int, c_int, c_void_p)


class Callbacks(ctypes.Structure):
    """`SlirpCb`, version 4."""

    _fields_ = (
        ("send_packet", SEND),
        ("guest_error", MESSAGE),
        ("clock_get_ns", CLOCK),
        ("timer_new", TIMER_NEW),
        ("timer_free", TIMER_FREE),
        ("timer_mod", TIMER_MOD),
        ("register_poll_fd", DESCRIPTOR),
        ("unregister_poll_fd", DESCRIPTOR),
        ("notify", NOTIFY),
        ("init_completed", COMPLETED),
        ("timer_new_opaque", TIMER_NEW_OPAQUE),
    )


def load(name: str = LIBRARY) -> ctypes.CDLL:
    """The library with its functions' types.

    Raises:
        OSError: it is not there, or lacks a function.
    """
    library = ctypes.CDLL(name)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "slirp_version_string": (c_char_p, []),
        "slirp_new": (c_void_p, [POINTER(Config), POINTER(Callbacks), c_void_p]),
        "slirp_cleanup": (None, [c_void_p]),
        "slirp_input": (None, [c_void_p, c_void_p, c_int]),
        "slirp_pollfds_fill": (None, [c_void_p, POINTER(c_uint32), ADD_POLL, c_void_p]),
        "slirp_pollfds_poll": (None, [c_void_p, c_int, GET_EVENTS, c_void_p]),
        "slirp_handle_timer": (None, [c_void_p, c_int, c_void_p]),
        "slirp_add_unix": (c_int, [c_void_p, c_char_p, POINTER(c_uint32), c_int]),
        "slirp_add_hostxfwd": (c_int, [c_void_p, c_char_p, c_int, c_char_p, c_int, c_int]),
        "slirp_remove_hostxfwd": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    }
    for function, (result, arguments) in signatures.items():
        try:
            entry = getattr(library, function)
        except AttributeError as error:
            raise OSError(f"{name} has no {function}") from error
        entry.restype, entry.argtypes = result, arguments
    return library


def probe(name: str = LIBRARY) -> Support:
    """Whether the library can be used, and if not, why not."""
    try:
        plain = ctypes.CDLL(name)
        plain.slirp_version_string.restype = c_char_p
        version = plain.slirp_version_string().decode()
    except (OSError, AttributeError) as error:
        return Support(False, "", f"libslirp cannot be loaded: {error}")
    wanted = ".".join(map(str, OLDEST))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or tuple(map(int, numbers.groups())) < OLDEST:
        return Support(False, version, f"libslirp {version} is older than {wanted}")
    try:
        load(name)
    except OSError as error:
        return Support(False, version, f"libslirp {version} will not do: {error}")
    return Support(True, version, "")
