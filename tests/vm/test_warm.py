"""Starts from a template: what clones share, what not, and what happens to bad templates."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from sandbox_rpc.host import process
from sandbox_rpc.qemu import store
from sandbox_rpc.qemu.store import Template
from tests.vm.conftest import MakeHost, Running, SshAgent
from tests.vm.host import Host, wait_for

PHASES = ["image", "template", "restore", "identity", "login"]
CLONES = 8
SECRET = "hush-0f9a7d52c1"


@frozen
class Warm:
    """A user who starts from templates, and the one that has been made."""

    host: Host
    agent: SshAgent

    @property
    def template(self) -> Template:
        """The template that was used last."""
        return next(store.every(self.host.layout))

    def start(self, name: str, *words: str, fresh: bool = True) -> Running:
        """A sandbox; stopped by `stopped`."""
        work = self.host.folder / "work" / name
        if fresh:
            self.host.workspace(name)
        return Running(self.host, work, self.host.start(work, *words))


@pytest.fixture(scope="module")
def warm(make_host: MakeHost, agent: SshAgent) -> Warm:
    """Its template is there, and some time old; secrets of a user's lie about when it is made."""
    host = make_host("warm", own_templates=True)
    host.extra |= {"SSH_AUTH_SOCK": str(agent.socket), "A_TOKEN": SECRET}
    found = Warm(host, agent)
    running = found.start(f"work-{SECRET}")
    running.run("sh", "-c", f"echo {SECRET} > {SECRET}")
    host.run("stop", running.name, "--force")
    return found


@contextmanager
def stopped(running: Running) -> Iterator[Running]:
    """The sandbox, stopped at the end, whatever comes."""
    try:
        yield running
    finally:
        running.host.run("stop", running.name, "--force")


def extents(path: Path, *, numbered: bool = False) -> Iterator[bytes]:
    """The content of a sparse file without its holes, on demand with its places."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            os.lseek(file.fileno(), begin, os.SEEK_SET)
            yield begin.to_bytes(8, "big") if numbered else b""
            left = at - begin
            while left:
                part = os.read(file.fileno(), min(left, 1 << 20))
                left -= len(part)
                yield part


def checksum(path: Path) -> str:
    """Of the data and of where the holes are."""
    digest = hashlib.sha256()
    for part in extents(path, numbered=True):
        digest.update(part)
    return digest.hexdigest()


IDS = r"""
    hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id
    sudo cat /sys/class/dmi/id/product_uuid
    cat /proc/sys/kernel/random/uuid; systemd-id128 new
    python3 -c 'import uuid; print(uuid.uuid4())'
    python3 -c 'import os; print(os.getrandom(32).hex()); print(os.urandom(32).hex())'
    sudo sha256sum /etc/ssh/ssh_host_ed25519_key | cut -c1-64
    sudo head -c 32 /dev/random | sha256sum
    perl -e 'printf "%.17g\n", rand'
    python3 -c 'print(hash("x"))'
    mktemp -u
"""
"""Asked as soon as there is a login."""


@pytest.fixture(scope="module")
def twins(warm: Warm) -> Iterator[tuple[Running, Running]]:
    """Two clones."""
    with stopped(warm.start("one")) as one, stopped(warm.start("two")) as two:
        yield one, two


def test_a_start_says_that_it_was_warm(twins: tuple[Running, Running]) -> None:
    for clone in twins:
        assert clone.value["startup"]["kind"] == "warm"
        assert "reason" not in clone.value["startup"]
        assert [phase["name"] for phase in clone.value["startup"]["phases"]] == PHASES


def test_two_clones_share_no_secret_and_no_number(twins: tuple[Running, Running]) -> None:
    one, two = (clone.sh(IDS).out.splitlines() for clone in twins)
    assert len(one) == len(two) == 14
    assert [first for first, second in zip(one, two, strict=True) if first == second] == []
    keys = {clone.value["ssh"]["hostKey"] for clone in twins}
    keys |= {clone.host.home_of(clone.name).client_key.read_text() for clone in twins}
    assert len(keys) == 4


def test_a_clone_is_one_guest_to_all_who_ask(twins: tuple[Running, Running]) -> None:
    """Machine id, boot and name are the same to the kernel, systemd, the journal and D-Bus."""
    script = """
        cat /etc/machine-id; hostname
        for service in systemd1 login1 hostname1; do
            busctl call org.freedesktop.$service / org.freedesktop.DBus.Peer GetMachineId
        done
        hostnamectl --json=short
        sudo journalctl -b -o json | head -1; sudo journalctl -b -o json -n 1
        sudo journalctl --list-boots -o json; ls /run/log/journal
        tr -d - < /proc/sys/kernel/random/boot_id
        sudo journalctl -b -o cat _TRANSPORT=kernel | head -1
        sudo journalctl -b -o cat SYSLOG_IDENTIFIER=sshd-session | grep -c Accepted
        sudo journalctl -b -o cat -p err
    """
    for clone in twins:
        lines = clone.sh(script).out.splitlines()
        identity, name = lines[:2]
        assert name == clone.name
        assert lines[2:5] == [f's "{identity}"'] * 3
        told = json.loads(lines[5])
        assert (told["Hostname"], told["MachineID"]) == (name, identity)
        boot = lines[10]
        for line in lines[6:8]:
            entry = json.loads(line)
            assert (entry["_MACHINE_ID"], entry["_HOSTNAME"]) == (identity, name)
            assert entry["_BOOT_ID"] == boot
        (only,) = json.loads(lines[8])
        assert only["boot_id"] == boot
        assert lines[9] == identity
        assert lines[11].startswith("Linux version")
        assert int(lines[12]) >= 1
        assert lines[13:] == []


def test_nothing_of_the_template_is_left_running(twins: tuple[Running, Running]) -> None:
    """No failed unit, no job that waits, no timer that would fire in an old template."""
    script = """
        systemctl is-system-running --wait; systemctl --failed --no-legend --plain
        systemctl --user is-system-running --wait; systemctl --user --failed --no-legend --plain
        systemctl list-timers --all -o json | jq -r '.[] | select(.next != null) | .unit'
        printenv SANDBOX_CONTAINER; sudo -n systemd-run -qP --wait printenv SANDBOX_CONTAINER
        systemd-run --user -qP --wait printenv SANDBOX_CONTAINER
    """
    for clone in twins:
        assert clone.sh(script).out.split() == ["running", "running"] + [clone.name] * 3


def has_prompt(log: Path) -> bool:
    return b"$ " in log.read_bytes()


def test_the_console_shows_this_sandbox(twins: tuple[Running, Running]) -> None:
    """Its prompt has this name, not the template's."""
    for clone in twins:
        log = clone.host.room_of(clone.name).console_log
        wait_for(partial(has_prompt, log), "the prompt", seconds=60)
        text = log.read_text(errors="replace")
        assert f"dev@{clone.name}:" in text
        assert "localhost" not in text


def test_the_clock_of_a_guest_from_an_old_template(
    warm: Warm, twins: tuple[Running, Running]
) -> None:
    """It is that of the host, to seconds, though the guest has slept since it was saved."""
    made = datetime.datetime.fromisoformat(warm.template.facts.created_at)
    age = datetime.datetime.now(datetime.UTC) - made
    assert age.total_seconds() > 10
    for clone in twins:
        before = time.time()
        guest = float(clone.sh("date +%s.%N").out)
        assert before - 2 < guest < time.time() + 2


def test_the_workspace_is_the_clones_own(twins: tuple[Running, Running]) -> None:
    for clone in twins:
        clone.sh("echo $HOSTNAME > ~/workspace/who; id -u > ~/workspace/uid")
        assert (clone.workspace / "who").read_text() == f"{clone.name}\n"
        assert (clone.workspace / "uid").read_text() == "1000\n"
        assert (clone.workspace / "who").stat().st_uid == os.geteuid()


def test_one_template_for_all_networks_and_kinds_of_sharing(warm: Warm) -> None:
    """What cannot be reached is not even named, and a read-only folder is one."""
    key = warm.template.key
    with stopped(warm.start("closed", "--network", "offline", "--read-only")) as clone:
        assert clone.value["startup"]["kind"] == "warm"
        assert warm.template.key == key
        done = clone.sh(
            "ip -4 route; cat /etc/resolv.conf; touch ~/workspace/x 2>&1;"
            " ping -c1 -W1 10.0.2.2 2>&1 | tail -1",
            check=False,
        )
        assert "default" not in done.out
        assert "nameserver" not in done.out
        assert "Read-only file system" in done.out


def test_other_sizes_have_templates_of_their_own(warm: Warm) -> None:
    before = {one.key for one in store.every(warm.host.layout)}
    with stopped(warm.start("small", "--memory", "1G", "--cpus", "1", "--disk", "12G")) as clone:
        assert clone.value["startup"]["kind"] == "warm"
        done = clone.sh(
            "awk '/MemTotal/{print $2}' /proc/meminfo; nproc; lsblk -bdno SIZE /dev/vda"
        )
        memory, cpus, disk = map(int, done.out.split())
        assert (900 << 10 < memory <= 1 << 20, cpus, disk) == (True, 1, 12 << 30)
        size = clone.sh("df -B1 --output=size / | tail -1")
        assert int(size.out) > 11 << 30
    (made,) = {one.key for one in store.every(warm.host.layout)} - before
    store.discard(warm.host.layout, made)


def secrets_of(warm: Warm) -> dict[str, bytes]:
    """What must not be in a template, by where it is from."""
    found = {
        "environment and workspace": SECRET.encode(),
        "any OpenSSH key": base64.b64encode(b"openssh-key-v1\0\0\0\0"),
        "the host's home folder": bytes(warm.host.home),
        "the agent's key": warm.agent.key.with_suffix(".pub").read_bytes().split()[1],
    }
    for path in warm.host.layout.names.glob("*/id_ed25519"):
        found[str(path)] = path.read_bytes().splitlines()[1]
        found[f"{path}.pub"] = path.with_suffix(".pub").read_bytes().split()[1]
    return found


def test_the_template_holds_no_secret(warm: Warm, twins: tuple[Running, Running]) -> None:
    """Every byte of it is looked at; what is known to be there is found."""
    wanted = secrets_of(warm)
    wanted |= {clone.name: clone.value["ssh"]["hostKey"].split()[1].encode() for clone in twins}
    assert len(wanted) >= 10
    places: list[tuple[str, str]] = []
    files = warm.template.files
    for path in (files.memory, files.state, files.disk, files.facts):
        text = b"".join(extents(path))
        places += [(path.name, what) for what, secret in wanted.items() if secret in text]
        if path == files.memory:
            assert len(text) > 100 << 20
            assert b"sandbox-agent.service" in text
            assert b"-----BEGIN OPENSSH PRIVATE KEY-----" in text, "a constant of sshd's own"
    assert places == []


def test_what_qemu_gets_of_the_template(warm: Warm, twins: tuple[Running, Running]) -> None:
    """A private mapping of its memory, and no way to write its disk."""
    memory = os.stat(warm.template.files.memory)
    for clone in twins:
        pid = clone.value["pid"]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert any(b"share=off" in word for word in words)
        assert not any(b"share=on" in word or b"balloon" in word for word in words)
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        mapped = [line.split() for line in maps if line.split()[4] == str(memory.st_ino)]
        assert mapped
        assert {fields[1][3] for fields in mapped} == {"p"}


def start_together(warm: Warm) -> list[Running]:
    """Eight, by as many commands at once."""
    folders = [warm.host.workspace(f"many-{number}") for number in range(CLONES)]
    words = [*warm.host.program, "start", "--json", "--quiet", "--memory", "768M"]
    children = [warm.host.popen([*words, str(folder)]) for folder in folders]
    clones = []
    for child, folder in zip(children, folders, strict=True):
        out, err = child.communicate(timeout=400)
        assert child.returncode == 0, err.decode()
        clones.append(Running(warm.host, folder, json.loads(out)))
    return clones


FILL = """
    dd if=/dev/zero of=/dev/shm/fill bs=1M count=300 status=none && stat -c %s /dev/shm/fill
    rm /dev/shm/fill; echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null
    echo 1 | sudo tee /proc/sys/vm/compact_memory >/dev/null
    dd if=/dev/zero of=big bs=1M count=20 status=none; sync; rm big; sudo fstrim /
    ls /sys/bus/virtio/drivers | tr '\\n' ' '
"""
"""Memory filled and freed, the disk discarded: nothing of it may get further than the clone."""


def test_eight_at_once_share_memory_and_cannot_change_it(warm: Warm) -> None:
    """They wait for one maker, all come up, fill and free memory; the file is as it was."""
    clones = start_together(warm)
    try:
        (template,) = {
            one.key: one for one in store.every(warm.host.layout)
            if one.facts.origin.memory_mib == 768
        }.values()  # fmt: skip
        before = checksum(template.files.memory)
        assert {clone.value["startup"]["kind"] for clone in clones} == {"warm"}
        assert len({clone.sh("cat /etc/machine-id").out for clone in clones}) == CLONES
        for clone in clones:
            done = clone.sh(FILL)
            assert done.out.splitlines()[0] == str(300 << 20)
            assert "balloon" not in done.out
        for clone in clones:
            found = Path(f"/proc/{clone.value['pid']}/smaps_rollup").read_text()
            sizes = {key: int(kib) for key, kib in re.findall(r"(\w+):\s+(\d+) kB", found)}
            # What is shared counts an eighth each.
            assert sizes["Rss"] - sizes["Pss"] > 30 << 10, found
        assert checksum(template.files.memory) == before
        assert store.find(warm.host.layout, template.key) is not None
    finally:
        warm.host.run("stop", *(clone.name for clone in clones[:1]), "--force")
        for clone in clones[1:]:
            warm.host.run("stop", clone.name, "--force")
    store.discard(warm.host.layout, template.key)


def reason_of(running: Running) -> str:
    assert running.value["startup"]["kind"] == "cold"
    return str(running.value["startup"]["reason"])


def test_never_means_never(warm: Warm, sandbox: Running) -> None:
    assert reason_of(sandbox) == "warm = never"


@pytest.fixture
def spare(warm: Warm) -> Iterator[Template]:
    """The template, with a copy of it to be put in its place at the end."""
    files, saved = warm.template.files, warm.host.folder / "saved"
    template = warm.template
    subprocess.run(["cp", "-a", "--sparse=always", files.folder, saved], check=True)
    yield template
    store.discard(warm.host.layout, template.key)
    saved.rename(files.folder)
    remark(files.folder)


def remark(folder: Path) -> None:
    """Say that a template's files are as they were when it was finished."""
    from sandbox_rpc.host.paths import TemplateFolder
    from sandbox_rpc.protocol import convert

    files = TemplateFolder(folder)
    facts = convert.from_wire(json.loads(files.facts.read_bytes()), store.Facts)
    facts = evolve(
        facts,
        memory=store.Mark.of(files.memory),
        disk=store.Mark.of(files.disk),
        state_sha256=hashlib.sha256(files.state.read_bytes()).hexdigest(),
    )
    files.facts.write_text(convert.dumps(facts))


def test_a_memory_file_touched_by_hand_is_thrown_away(warm: Warm, spare: Template) -> None:
    """The start goes on cold, and says why; the next one makes another template."""
    with spare.files.memory.open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"touched")
    with stopped(warm.start("touched")) as clone:
        assert "memory has been touched" in reason_of(clone)
        assert clone.sh("hostname").out == f"{clone.name}\n"
        assert store.keys(warm.host.layout) == []
    with stopped(warm.start("touched", fresh=False)) as clone:
        assert clone.value["startup"]["kind"] == "warm"
        assert store.keys(warm.host.layout) == [spare.key]


def test_a_state_that_qemu_does_not_take(warm: Warm, spare: Template) -> None:
    """Of another machine, say: QEMU refuses it, and the start goes on cold."""
    state = bytearray(spare.files.state.read_bytes())
    middle = len(state) // 2
    state[middle : middle + 4096] = os.urandom(4096)
    state[300:600] = bytes(300)
    spare.files.state.write_bytes(state)
    remark(spare.files.folder)
    with stopped(warm.start("refused")) as clone:
        assert "restoring failed" in reason_of(clone)
        assert clone.sh("hostname").out == f"{clone.name}\n"
        assert store.keys(warm.host.layout) == []


def test_a_guest_that_does_not_answer(warm: Warm, spare: Template) -> None:
    """Its kernel is overwritten, and nothing on the host can know: it is given up."""
    with spare.files.memory.open("r+b") as file:
        for part in range(16 << 20, 512 << 20, 1 << 20):
            file.seek(part)
            file.write(b"\xcc" * (1 << 20))
    remark(spare.files.folder)
    with stopped(warm.start("silent")) as clone:
        assert reason_of(clone)
        assert clone.sh("hostname").out == f"{clone.name}\n"
        assert store.keys(warm.host.layout) == []


def qmp(host: Host, name: str, *commands: str) -> Any:
    """Speak to QEMU as its only client, which takes a supervisor that is not there."""
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(30)
        folder = os.open(host.room_of(name).folder, os.O_PATH)
        try:
            one.connect(f"/proc/self/fd/{folder}/qmp.sock")
        finally:
            os.close(folder)
        stream = one.makefile("rw")
        stream.readline()
        answer = None
        for command in ("qmp_capabilities", *commands):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in (answer := json.loads(stream.readline())):
                assert "error" not in answer, answer
    return answer


def test_the_clock_is_right_again_after_a_pause(warm: Warm) -> None:
    """QEMU is stopped for a while, without its supervisor; the next one lets it go on."""
    host = warm.host
    with stopped(warm.start("paused")) as clone:
        supervisor = process.identify(host.supervisor_pid(clone.name))
        assert supervisor is not None
        supervisor.kill()
        wait_for(lambda: not supervisor.is_alive(), "its end")
        qmp(host, clone.name, "stop")
        time.sleep(6)
        assert host.json("status", clone.name)["state"] == "running"

        def off() -> float:
            before = time.time()
            return abs(float(clone.sh("date +%s.%N").out) - (before + time.time()) / 2)

        wait_for(lambda: off() < 3, "the right time", seconds=60)
