"""The identity document: what the guest's agent will read, and what does not fit."""

from __future__ import annotations

import base64
import uuid
from importlib import resources

import attrs
import pytest

from sandbox_rpc.guest.identity import (
    WORKSPACE_MOUNT,
    Identity,
    credentials,
    document,
    hostname_of,
    proxy_environment,
    renewed,
    smbios,
)
from sandbox_rpc.protocol.errors import SettingInvalid

IDENTITY = Identity(
    hostname="sandbox-app",
    machine_id="0" * 32,
    authorized_keys=("ssh-ed25519 AAAA one", "ssh-rsa BBBB two"),
    host_key="PRIVATE\nKEY\n",
    environment={"B": "2", "A": "x y"},
)


def read(text: bytes) -> dict[str, str]:
    """The document as the agent takes it."""
    lines = (line.split(b" ") for line in text.splitlines())
    return {key.decode(): base64.b64decode(value).decode() for key, value in lines}


def test_document() -> None:
    """Every field under its key; what is None is absent."""
    assert read(document(IDENTITY)) == {
        "hostname": "sandbox-app",
        "machine_id": "0" * 32,
        "authorized_keys": "ssh-ed25519 AAAA one\nssh-rsa BBBB two\n",
        "ssh_host_ed25519_key": "PRIVATE\nKEY\n",
        "environment": "A=x y\nB=2\n",
        "workspace": "trans=virtio,version=9p2000.L,msize=512000,access=client,cache=mmap,directio",
    }
    other = attrs.evolve(IDENTITY, uid=12345, gid=100, workspace=None)
    assert read(document(other))["uid"] == "12345"
    assert read(document(other))["gid"] == "100"
    assert "workspace" not in read(document(other))


def test_the_images_own_unit_says_the_same() -> None:
    """The agent mounts by the identity; whoever starts the unit by hand gets no other options."""
    unit = resources.files("sandbox_rpc.guest") / "rootfs/base/etc/systemd/system"
    text = (unit / "home-dev-workspace.mount").read_text()
    assert f"\nOptions={WORKSPACE_MOUNT},nosuid,nodev\n" in text


def test_credentials_by_smbios() -> None:
    """systemd's own names for PID 1, ours for the agent; binary, so that newlines survive."""
    found = credentials(IDENTITY)
    assert set(found) == {"system.hostname", "system.machine_id", "sandbox.identity"}
    line = smbios("system.hostname", found["system.hostname"])
    assert line == b"io.systemd.credential.binary:system.hostname=c2FuZGJveC1hcHA="


def test_too_many_keys_are_an_error_before_qemu_dies_of_them() -> None:
    """QEMU ends without a start when SMBIOS overflows; this says which setting helps."""
    many = attrs.evolve(IDENTITY, authorized_keys=("ssh-rsa " + "A" * 700,) * 60)
    with pytest.raises(SettingInvalid) as caught:
        credentials(many)
    assert caught.value.details["setting"] == "ssh.agent_keys"


def test_the_private_key_is_not_shown() -> None:
    """A log line with the value in it does not hold the host key."""
    assert "PRIVATE" not in repr(IDENTITY)


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        ("sandbox-my_app.x", "sandbox-my-app-x"),
        ("a" * 80, "a" * 63),
        ("___", "sandbox"),
        ("a" * 62 + "_b", "a" * 62),
    ],
)
def test_host_names(name: str, hostname: str) -> None:
    """Whatever the sandbox is called, the host name is one."""
    assert hostname_of(name) == hostname


def test_proxy_variables() -> None:
    """Programs look for either case."""
    found = proxy_environment("http://10.0.2.100:8888")
    assert found["http_proxy"] == found["HTTPS_PROXY"] == "http://10.0.2.100:8888"
    assert "localhost" in found["no_proxy"]


def test_the_document_of_a_restored_guest() -> None:
    """The same, with what its kernel would have got from a boot; the ids are new each time."""
    first, second = (
        renewed(IDENTITY, now=1795467863.25, entropy=bytes(range(64))) for _ in range(2)
    )
    assert first.endswith(document(IDENTITY))
    lines = dict(line.split(b" ") for line in first.splitlines())
    assert base64.b64decode(lines[b"entropy"]) == bytes(range(64))
    assert base64.b64decode(lines[b"time"]) == b"1795467863.250000"
    ids = [
        base64.b64decode(dict(line.split(b" ") for line in text.splitlines())[key]).decode()
        for text in (first, second)
        for key in (b"boot_id", b"product_uuid")
    ]
    assert len({uuid.UUID(one) for one in ids}) == 4
