"""The identity in the dialects of images that somebody else made: fw_cfg, and cloud-init's NoCloud.

    opt/com.sandbox/hostname, ssh_keys, proxy    fw_cfg, as the published image reads it: a name,
                                                 public keys in base64, a URL
    user-data, meta-data                         on a disk labelled cidata, for cloud-init
    tmpfiles.extra                               a credential: keys for a systemd from 252 on

Where the guest's systemd takes units as credentials (from 256 on), it is also given our agent, and
is from then on like an image of ours.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path

from sandbox_rpc.guest.identity import WORKSPACE_MOUNT, Identity

PREFIX = "opt/com.sandbox/"
SYSTEMD = "opt/io.systemd.credentials/"
"""Where systemd looks for credentials in fw_cfg, which has room for large ones."""
MAX_NAME = 55
"""Bytes of a fw_cfg name."""
WORKSPACE = "/home/dev/workspace"
AGENT = Path(__file__).parent / "agent.pl"
TMPFILES = 252
"""The first systemd that takes `tmpfiles.extra`."""
UNIT = "sandbox-agent.service"
WANTED = f"systemd.wants={UNIT}"
"""Kernel argument that makes systemd start the injected unit."""

_UNIT = """\
[Unit]
Description=Sandbox identity and workspace
After=home-dev-workspace.mount cloud-init.service cloud-init-network.service
Before=ssh.service sshd.service dev-sshd.service

[Service]
Type=notify
NotifyAccess=all
TimeoutStartSec=infinity
# The image has its own way to the network.
Environment=SANDBOX_AGENT_NETWORK=no
ExecStart=/usr/bin/perl /run/credentials/@system/sandbox.agent
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-900
StandardOutput=null
StandardError=file:/dev/kmsg
"""


def fw_cfg(identity: Identity) -> dict[str, bytes]:
    """What the published image reads, by fw_cfg's names."""
    keys = "".join(f"{key}\n" for key in identity.authorized_keys)
    values = {
        "hostname": identity.hostname.encode(),
        "ssh_keys": base64.b64encode(keys.encode()),
    }
    if proxy := identity.environment.get("http_proxy"):
        values["proxy"] = proxy.encode()
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def injected(identity: Identity) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The agent for a guest that has none: credentials by SMBIOS, and by fw_cfg."""
    credentials = {f"systemd.extra-unit.{UNIT}": _UNIT.encode()}
    if identity.workspace is not None:
        # The image's own unit may mount it with options that break mmap, or make files root's.
        options = f"[Mount]\nOptions=\nOptions={identity.workspace},nosuid,nodev\n"
        credentials["systemd.unit-dropin.home-dev-workspace.mount"] = options.encode()
    return credentials, {f"{SYSTEMD}sandbox.agent": AGENT.read_bytes()}


def tmpfiles(identity: Identity) -> bytes:
    """The credential `tmpfiles.extra` (systemd 252): host key and authorized keys, before sshd."""
    keys = "".join(f"{key}\n" for key in identity.authorized_keys)
    files = [
        ("/etc/ssh/ssh_host_ed25519_key", "root root", identity.host_key),
        ("/home/dev/.ssh/authorized_keys", "dev dev", keys),
    ]
    if own := identity.host_key_file:
        owner = "dev dev" if own.startswith("/home/dev/") else "root root"
        files.append((own, owner, identity.host_key))
    lines = ["d /home/dev/.ssh 0700 dev dev -"]
    for path, owner, content in files:
        lines.append(f"f+~ {path} 0600 {owner} - {base64.b64encode(content.encode()).decode()}")
    return "".join(f"{line}\n" for line in lines).encode()


def user_data(identity: Identity, host_key: str) -> bytes:
    """cloud-init's configuration; `host_key` is the public half. JSON is YAML."""
    options = f"{identity.workspace or WORKSPACE_MOUNT},nosuid,nodev"
    mounted = f"mountpoint -q {WORKSPACE} || mount -t 9p -o {options} workspace {WORKSPACE}"
    environment = "".join(f"{name}={v}\n" for name, v in sorted(identity.environment.items()))
    dev: dict[str, object] = {
        "name": "dev", "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True,
        "ssh_authorized_keys": list(identity.authorized_keys),
    }  # fmt: skip
    if identity.uid is not None:
        dev["uid"] = identity.uid
    value = {
        "hostname": identity.hostname,
        "users": [dev],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": identity.host_key, "ed25519_public": host_key},
        "write_files": [
            {"path": "/etc/environment", "content": environment, "append": True},
            *(
                {"path": path, "content": content}
                for path, content in sorted(identity.packages.files.items())
                if not path.startswith("/home/")
            ),
        ],
        "runcmd": [["sh", "-c", f"install -d -o dev -g dev {WORKSPACE}; {mounted}"]],
        "package_update": False,
    }
    return b"#cloud-config\n" + json.dumps(value, indent=1).encode() + b"\n"


def seed(identity: Identity, host_key: str) -> bytes:
    """The NoCloud disk: an ISO 9660 file system of some 400 kB."""
    from pycdlib import PyCdlib  # imported on use: only such images need it

    contents: Mapping[str, bytes] = {
        "user-data": user_data(identity, host_key),
        "meta-data": json.dumps(
            {"instance-id": identity.machine_id, "local-hostname": identity.hostname}
        ).encode(),
    }
    disk, target = PyCdlib(), io.BytesIO()
    disk.new(interchange_level=1, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    try:
        for name, content in contents.items():
            plain = name.upper().replace("-", "_")[:8]
            disk.add_fp(
                io.BytesIO(content), len(content), f"/{plain}.;1",
                rr_name=name, joliet_path=f"/{name}",
            )  # fmt: skip
        disk.write_fp(target)
    finally:
        disk.close()
    return target.getvalue()
