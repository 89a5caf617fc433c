"""What a start does with the host's registries: pins, hosts, files, or none of it."""

from __future__ import annotations

import json

import attrs
import pytest

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.guest.identity import MAX_CREDENTIALS, Identity, credentials, smbios
from sandbox_rpc.host import lookup, registries
from sandbox_rpc.host.registries import Found, certificates
from sandbox_rpc.host.registries.url import Kind, clean
from sandbox_rpc.network.proxy.settings import Pin
from sandbox_rpc.protocol import convert
from sandbox_rpc.protocol.errors import SettingInvalid
from sandbox_rpc.qemu.machine import Accelerator
from sandbox_rpc.supervisor import supply as supplies
from sandbox_rpc.supervisor.request import Launch, StartRequest
from sandbox_rpc.supervisor.supply import Supply, supply


def found(*urls: str, configured: bool = True) -> Found:
    made = [clean(Kind.PIP, url, "extra", configured=configured) for url in urls]
    return Found(tuple(one for one in made if one), (b"CERTIFICATE",), (), ("a warning",))


def test_a_private_registry_is_pinned_and_named() -> None:
    made = supply(
        found("https://a.example/x", "http://a.example:8080/y", "https://public.example"),
        {"a.example": ("10.1.2.3", "10.1.2.4"), "public.example": ("1.1.1.1",)},
        opens=True,
    )
    assert made.pins == (
        ("10.1.2.3", 443), ("10.1.2.4", 443), ("10.1.2.3", 8080), ("10.1.2.4", 8080)
    )  # fmt: skip
    assert made.packages.hosts == (("10.1.2.3", "a.example"), ("10.1.2.4", "a.example"))
    assert "https://public.example" in made.packages.files["/etc/pip.conf"]
    assert made.warnings == ("a warning",)


def test_what_a_tool_has_built_in_is_pinned_as_well() -> None:
    made = supply(
        found("https://a.example/x", configured=False), {"a.example": ("192.0.2.9",)}, opens=True
    )
    assert made.pins == (("192.0.2.9", 443),)
    assert made.packages.hosts == (("192.0.2.9", "a.example"),)
    assert "a.example" not in made.packages.files["/etc/pip.conf"]


def test_a_name_with_a_global_address_too_is_left_to_dns() -> None:
    made = supply(found("https://a.example/"), {"a.example": ("1.1.1.1", "10.1.2.3")}, opens=True)
    assert made.pins == (("10.1.2.3", 443),)
    assert made.packages.hosts == ()


def test_a_name_that_does_not_resolve_is_told_and_said() -> None:
    made = supply(found("https://a.example/x", "https://b.example"), {"b.example": ("1.1.1.1",)},
                  opens=True)  # fmt: skip
    assert "https://a.example/x" in made.packages.files["/etc/pip.conf"]
    assert made.pins == ()
    assert ["a.example" in one and "b.example" not in one for one in made.warnings] == [False, True]
    built_in = supply(found("https://a.example/x", configured=False), {}, opens=True)
    assert built_in.warnings == ("a warning",)
    assert supply(found("https://a.example/x"), {}, opens=False).warnings == ("a warning",)


def test_an_address_needs_no_name() -> None:
    made = supply(found("http://10.7.7.7:81/"), {"10.7.7.7": ("10.7.7.7",)}, opens=True)
    assert made.pins == (("10.7.7.7", 81),)
    assert made.packages.hosts == ()


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "100.100.100.200", "0.0.0.0", "224.0.0.1"]
)
def test_no_name_opens_what_hands_out_credentials(address: str) -> None:
    """Whoever answers this host's questions for names would have it in their hands."""
    made = supply(found("http://a.example/"), {"a.example": (address,)}, opens=True)
    assert (made.pins, made.packages.hosts) == ((), ())


def test_a_registry_on_the_hosts_loopback_is_not_told() -> None:
    made = supply(found("http://localhost:3141/"), {"localhost": ("127.0.0.1",)}, opens=True)
    assert made.pins == ()
    assert "localhost" not in made.packages.files["/etc/pip.conf"]
    assert len(made.warnings) == 2
    assert "localhost" in made.warnings[1]


def test_a_name_nobody_knows_is_told_all_the_same() -> None:
    """The resolver may have been slow; a guess would not be better."""
    made = supply(found("https://a.example/"), {}, opens=True)
    assert made.pins == ()
    assert "a.example" in made.packages.files["/etc/pip.conf"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "settings",
    [Settings(network=Network.OFFLINE), Settings(registries=False)],
    ids=["offline", "switched off"],
)
async def test_nothing_is_read_where_nothing_is_wanted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "read", lambda *_: pytest.fail("it was read"))
    assert await supplies.find(settings, {}) == Supply()


@pytest.mark.anyio
async def test_the_proxy_knows_the_registries_and_the_guest_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = (
        "https://a.example/", "https://public.example:8443/x", "http://localhost:3141/team/",
        "http://127.0.0.1:4873/", "https://trick.example/", "https://meta.example/",
        "https://unknown.example/",
    )  # fmt: skip
    addresses = {
        "a.example": ("10.1.2.3",), "public.example": ("1.1.1.1",), "localhost": ("127.0.0.1",),
        "127.0.0.1": ("127.0.0.1",), "trick.example": ("127.0.0.1",),
        "meta.example": ("169.254.169.254",),
    }  # fmt: skip
    options = ('Acquire::http::Proxy "http://apt.example:3142/";', 'Acquire::Check-Date "false";')
    apt = clean(Kind.APT, "http://apt.example:3142/", "proxy")
    assert apt is not None
    known = attrs.evolve(
        found(*urls), apt_options=options, registries=(*found(*urls).registries, apt)
    )
    monkeypatch.setattr(registries, "read", lambda _: known)
    monkeypatch.setattr(lookup, "addresses", lambda _: addresses)
    made = await supplies.find(Settings(network=Network.PROXY), {})
    assert made.registries == (
        Pin("a.example", 443, ("10.1.2.3",)), Pin("public.example", 8443),
        Pin("loopback.sandbox", 3141, ("127.0.0.1",)),
        Pin("loopback.sandbox", 4873, ("127.0.0.1",)),
        Pin("unknown.example", 443),
    )  # fmt: skip
    pip = made.packages.files["/etc/pip.conf"]
    assert "http://loopback.sandbox:3141/team/" in pip
    assert "trick.example" not in pip
    lines = made.packages.files["/etc/apt/apt.conf.d/60sandbox"]
    assert 'Acquire::http::Proxy "http://10.0.2.100:8888";' in lines
    assert 'Acquire::Check-Date "false";' in lines
    assert "apt.example" not in lines
    assert made.pins == ()
    assert made.packages.hosts == ()
    assert sum("no guest may go" in warning for warning in made.warnings) == 2


@pytest.mark.anyio
async def test_without_registries_the_guest_still_knows_its_proxy() -> None:
    made = await supplies.find(Settings(network=Network.PROXY, registries=False), {})
    assert made.registries == ()
    assert set(made.packages.files) == {"/etc/apt/apt.conf.d/60sandbox"}


def test_the_next_supervisor_knows_the_pins() -> None:
    request = StartRequest(workspace="/w", settings=Settings())
    note = Launch(request, Accelerator.TCG, 22, "key", True, [("10.1.2.3", 443)])
    assert convert.from_wire(json.loads(convert.dumps(note)), Launch) == note


def test_as_many_certificates_as_may_travel_fit() -> None:
    """Together with a dozen keys; what does not fit is an error that says what to do."""
    most = supply(Found((), (b"x" * certificates.MAX_BYTES,), (), ()), {}, opens=True).packages
    keys = ("ssh-rsa " + "A" * 700,) * 12
    identity = Identity("x", "0" * 32, keys, "KEY" * 200, packages=most)
    found = credentials(identity)
    assert sum(len(smbios(*item)) for item in found.items()) < MAX_CREDENTIALS
    with pytest.raises(SettingInvalid) as caught:
        credentials(attrs.evolve(identity, authorized_keys=keys * 3))
    assert caught.value.details["setting"] == "registries"
