"""The identity as fw_cfg, as units and as cloud-init's seed."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import attrs
import pytest
from pycdlib import PyCdlib

from sandbox_rpc.guest import dialects
from sandbox_rpc.guest.identity import Identity, credentials, proxy_environment, smbios
from sandbox_rpc.guest.packages import Packages

IDENTITY = Identity(
    hostname="box",
    machine_id="0" * 32,
    authorized_keys=("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"),
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n",
    environment={"SANDBOX_CONTAINER": "box", **proxy_environment("http://10.0.2.100:8888")},
    packages=Packages(files={"/etc/pip.conf": "[global]\n", "/home/dev/.npmrc": "x=y\n"}),
)


def test_what_the_published_image_reads() -> None:
    values = dialects.fw_cfg(IDENTITY)
    assert set(values) == {f"opt/com.sandbox/{n}" for n in ("hostname", "ssh_keys", "proxy")}
    assert values["opt/com.sandbox/hostname"] == b"box"
    keys = base64.b64decode(values["opt/com.sandbox/ssh_keys"])
    assert keys == b"ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    assert values["opt/com.sandbox/proxy"] == b"http://10.0.2.100:8888"
    # No private key: anyone in the guest reads these.
    assert b"PRIVATE" not in b"".join(values.values())
    plain = Identity("box", "0" * 32, (), "key")
    assert "opt/com.sandbox/proxy" not in dialects.fw_cfg(plain)


def test_the_agent_for_a_guest_that_has_none() -> None:
    units, large = dialects.injected(IDENTITY)
    text = units["systemd.extra-unit.sandbox-agent.service"].decode()
    assert "ExecStart=/usr/bin/perl /run/credentials/@system/sandbox.agent" in text
    assert "Before=ssh.service sshd.service dev-sshd.service" in text
    (name,) = large
    assert name == "opt/io.systemd.credentials/sandbox.agent"
    assert len(name) <= dialects.MAX_NAME
    assert large[name].startswith(b"#!/usr/bin/perl")
    # Small enough to go beside the identity.
    size = sum(len(smbios(key, value)) for key, value in units.items())
    assert size < 3000
    assert set(units).isdisjoint(credentials(IDENTITY))


def test_the_mount_gets_our_options_unless_nothing_is_shared() -> None:
    units, _ = dialects.injected(IDENTITY)
    options = units["systemd.unit-dropin.home-dev-workspace.mount"].decode()
    assert "Options=\nOptions=trans=virtio,version=9p2000.L" in options
    assert "cache=mmap" in options
    units, _ = dialects.injected(Identity("box", "0" * 32, (), "key", workspace=None))
    assert list(units) == ["systemd.extra-unit.sandbox-agent.service"]


def test_keys_for_an_older_systemd() -> None:
    identity = attrs.evolve(IDENTITY, host_key_file="/home/dev/.ssh/own")
    lines = [line.split() for line in dialects.tmpfiles(identity).decode().splitlines()]
    files = {line[1]: (line[2], *line[3:5], base64.b64decode(line[6])) for line in lines[1:]}
    key = IDENTITY.host_key.encode()
    assert files == {
        "/etc/ssh/ssh_host_ed25519_key": ("0600", "root", "root", key),
        "/home/dev/.ssh/own": ("0600", "dev", "dev", key),
        "/home/dev/.ssh/authorized_keys": (
            "0600", "dev", "dev", b"ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n",
        ),
    }  # fmt: skip


def test_cloud_inits_configuration() -> None:
    first, _, rest = dialects.user_data(IDENTITY, "ssh-ed25519 CCCC").partition(b"\n")
    assert first == b"#cloud-config"
    value = json.loads(rest)
    (dev,) = value["users"]
    assert (dev["name"], dev["sudo"]) == ("dev", "ALL=(ALL) NOPASSWD:ALL")
    assert dev["ssh_authorized_keys"] == list(IDENTITY.authorized_keys)
    assert value["ssh_keys"]["ed25519_private"] == IDENTITY.host_key
    assert value["ssh_keys"]["ed25519_public"] == "ssh-ed25519 CCCC"
    files = {one["path"]: one["content"] for one in value["write_files"]}
    assert set(files) == {"/etc/environment", "/etc/pip.conf"}
    assert "http_proxy=http://10.0.2.100:8888\n" in files["/etc/environment"]
    assert "SANDBOX_CONTAINER=box\n" in files["/etc/environment"]
    assert "mount -t 9p" in value["runcmd"][0][2]


def test_the_seed_is_a_file_system_that_is_found_by_its_label(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    path.write_bytes(dialects.seed(IDENTITY, "ssh-ed25519 CCCC"))
    assert path.stat().st_size < 1 << 20
    done = subprocess.run(
        ["/sbin/blkid", "-p", "-o", "export", str(path)], capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (found["LABEL"].lower(), found["TYPE"]) == ("cidata", "iso9660")
    disk = PyCdlib()
    disk.open(str(path))
    try:
        for name in ("user-data", "meta-data"):
            content = io.BytesIO()
            disk.get_file_from_iso_fp(content, rr_path=f"/{name}")
            assert content.getvalue()
        assert content.getvalue() == b'{"instance-id": "%s", "local-hostname": "box"}' % (b"0" * 32)
    finally:
        disk.close()


@pytest.mark.parametrize("name", ["hostname", "ssh_keys", "proxy"])
def test_names_that_fw_cfg_takes(name: str) -> None:
    assert len(f"{dialects.PREFIX}{name}") <= dialects.MAX_NAME
