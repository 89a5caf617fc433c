"""Images that somebody else made: pulled from a registry, booted, logged into, stopped in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import refs, store
from sandbox_rpc.supervisor.supply import PROXY_URL
from tests.registry.conftest import publish
from tests.registry.server import Registry
from tests.vm import variants
from tests.vm.conftest import MakeHost, Running
from tests.vm.host import Host, wait_for

Publish = Callable[[str, str], str]


@pytest.fixture(scope="module")
def pushed(top: Path, built: Path) -> Iterator[Publish]:
    """`pushed(variant, name)` puts a variant into a registry, as the ORAS CLI does; its name."""
    base = built.parent
    if not refs.path_of(Layout(base), variants.CLOUD_REF).exists():
        base = top / "variants"
        variants.make(base)
    registry = Registry(top / "registry")

    def push(variant: str, name: str) -> str:
        folder = top / name.replace("/", "-")
        folder.mkdir()
        packed = variants.disk_of(store.resolve(Layout(base), variant), folder)
        publish(registry.host, f"{name}:latest", packed.read_bytes())
        shutil.rmtree(folder)
        return f"{registry.host}/{name}:latest"

    try:
        yield push
    finally:
        registry.end()


@pytest.fixture(scope="module")
def visitor(make_host: MakeHost) -> Host:
    """A user with a cache of its own, empty."""
    host = make_host("visitor")
    (host.base / "kvm-cache").unlink()
    return host


def started(host: Host, name: str, ref: str, *words: str) -> Running:
    workspace = host.workspace(name)
    (workspace / "from-host").write_text("hello\n")
    # One processor: QEMU 7.2's emulation of several sometimes trips a kernel that patches itself
    # (docs/limitations.md), and these boot with all that Debian's kernel does by default.
    value: dict[str, Any] = host.start(workspace, "--image", ref, "--cpus", "1", *words)
    assert value["state"] == "running"
    assert value["image"] == ref
    return Running(host, workspace, value)


def works(running: Running) -> None:
    """What every sandbox promises, whoever made its image."""
    host, name = running.host, running.name
    assert running.run("id", "-un").out == "dev\n"
    assert running.run("sudo", "-n", "id", "-u").out == "0\n"
    assert running.sh("hostname").out.strip() == name
    workspace = "/home/dev/workspace"
    assert running.run("cat", f"{workspace}/from-host").out == "hello\n"
    running.sh(f"echo guest >{workspace}/from-guest && mkdir {workspace}/folder")
    assert (running.workspace / "from-guest").read_text() == "guest\n"
    assert (running.workspace / "from-guest").stat().st_uid == host.uid
    mounts = running.sh("cat /proc/mounts").out
    (mount,) = [line for line in mounts.splitlines() if f" {workspace} 9p " in line]
    # As the kernel writes cache=mmap.
    assert "cache=0x5,access=client,directio,msize=512000" in mount
    assert "nosuid" in mount
    assert f"SANDBOX_CONTAINER={name}" in running.sh("cat /etc/environment").out
    # The key was pinned before the first login: what the alias knows is what the guest has.
    known = (host.home_of(name).known_hosts).read_text()
    assert running.value["ssh"]["hostKey"] in known
    other = host.folder / "other-known-hosts"
    other.write_text(known.replace("AAAAC3", "AAAAC4"))
    refused = running.ssh("true", "-o", f"UserKnownHostsFile={other}", check=False)
    assert refused.status == 255


def stops_in_order(running: Running) -> None:
    """The guest itself shuts down: nobody has to end QEMU."""
    log = running.host.room_of(running.name).console_log
    keep = running.host.folder / f"{running.name}.console"
    keep.hardlink_to(log)
    value = running.host.json("stop", running.name)
    assert value["state"] == "stopped"
    wait_for(lambda: "Power down" in keep.read_text(errors="replace"), "an orderly power-off")


def test_the_published_image(visitor: Host, pushed: Publish) -> None:
    ref = pushed(variants.PUBLISHED_REF, "narkatee/sandbox-kvm-image")
    running = started(visitor, "published", ref, "--proxy")
    works(running)
    # By its own unit from fw_cfg, and by the agent.
    environment = running.sh("cat /etc/environment").out.splitlines()
    assert f"http_proxy={PROXY_URL}" in environment
    assert f"HTTP_PROXY={PROXY_URL}" in environment
    # It answers, and lets nothing through that nobody has allowed.
    asked = running.sh(
        "curl -s -o /dev/null -w '%{http_code}' http://sandbox.invalid/", check=False
    )
    assert asked.out == "403"
    # The injected agent did it, and nothing of it is on the image's disk.
    phases = [phase["name"] for phase in running.value["startup"]["phases"]]
    assert "boot" in phases
    assert running.sh("systemctl is-active sandbox-agent.service").out == "active\n"
    assert running.sh("test ! -e /usr/local/sbin/sandbox-agent").status == 0
    # Its own units did their part as well.
    assert running.sh("findmnt -no SOURCE /").out == "/dev/vda3\n"
    assert running.sh("systemctl is-active home-dev-workspace.mount").out == "active\n"
    assert running.sh("systemctl is-active dev-sshd.service").out == "active\n"
    assert "ssh-ed25519" in running.sh("cat /home/dev/.ssh/from_fw_cfg").out
    running.sh("getent hosts localhost && ip -4 addr show | grep -q 10.0.2.15")
    listed = visitor.json("image", "list")
    assert listed[0]["inUseBy"] == [running.name]
    assert "needed" in visitor.run("image", "remove", ref, check=False).err
    assert visitor.json("image", "prune", "--all")["digests"] == []
    stops_in_order(running)


def test_a_cloud_image_without_the_agent(visitor: Host, pushed: Publish) -> None:
    running = started(visitor, "cloud", pushed(variants.CLOUD_REF, "cloud/debian"))
    works(running)
    startup = running.value["startup"]
    assert startup["kind"] == "cold"
    assert "no agent" in startup["reason"]
    assert "settle" in [phase["name"] for phase in startup["phases"]]
    assert running.sh("cloud-init status --wait || true").out.startswith("status: done")
    stops_in_order(running)


def test_an_older_system_that_takes_keys_but_no_agent(visitor: Host, pushed: Publish) -> None:
    """The published image as it would be on systemd 252: what is known of it says so."""
    image = next(one for one in store.list_images(visitor.layout) if one.host_key_file is not None)
    folder = visitor.layout.staging / "older"
    folder.mkdir()
    for path in (image.disk, image.kernel, image.initrd):
        (folder / path.name).hardlink_to(path)
    facts = json.loads((image.folder / store.METADATA).read_bytes())
    layer = facts.pop("files")[store.DISK]["layer"]
    del facts["schema"], facts["manifest"]
    facts |= {"agent": False, "injectsAgent": False, "systemd": 252}
    digest = store.describe(folder, facts, layer=layer)
    store.publish(visitor.layout, "test/older", folder, digest)
    running = started(visitor, "older", "test/older")
    works(running)
    assert "no agent" in running.value["startup"]["reason"]
    assert running.sh("systemctl is-active home-dev-workspace.mount").out == "active\n"
    assert running.sh("systemctl is-active sandbox-agent.service", check=False).status != 0
    stops_in_order(running)
