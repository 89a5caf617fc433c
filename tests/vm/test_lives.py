"""Two lives of one sandbox: shell functions, mapped-xattr, stop, start by SSH, another's folder.

Each fixture is one step and needs the one before it, so that two boots do for all of it.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from sandbox_rpc.ssh import config
from tests.vm.conftest import MakeHost, Running
from tests.vm.host import Done, Host, wait_for
from tests.vm.test_ssh import listeners

NAME = "sandbox-lives"
OWNER = 54321


def functions(
    host: Host, script: str, *, shell: str = "bash", cwd: Path, check: bool = True
) -> Done:
    """Run a script that has sourced the seed's backend functions."""
    load = f'eval "$({shlex.join(host.program)} shell-functions)"\n'
    return host.call([shell, "-c", load + script], cwd=cwd, check=check)


def users_of(folder: Path) -> dict[int, str]:
    """Processes with a file below a folder open, or its path in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            links = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
            links.append(os.readlink(entry / "cwd"))
        except OSError:
            continue  # gone meanwhile
        if os.fsencode(folder) in words or any(link.startswith(str(folder)) for link in links):
            found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


@frozen
class Life:
    """What differs between two lives, and what does not."""

    running: Running
    machine_id: str
    told: str = ""


@frozen
class Remains:
    """What a stop left."""

    life: Life
    done: Done


@pytest.fixture(scope="module")
def lives_host(make_host: MakeHost) -> Host:
    """A user whose settings ask for mapped-xattr."""
    host = make_host("lives")
    host.config_file.write_text('[workspace]\nsecurity = "mapped-xattr"\n')
    return host


@pytest.fixture(scope="module")
def first(lives_host: Host) -> Life:
    """Started by the seed's function."""
    workspace = lives_host.workspace("project")
    (workspace / "made on the host").write_text("by the host\n")
    (workspace / "made on the host").chmod(0o755)
    done = functions(
        lives_host,
        f"is_kvm_running {NAME} && echo too early\nstart_kvm_sandbox {NAME} && echo started\n",
        cwd=workspace,
    )
    value = lives_host.json("status", NAME)
    running = Running(lives_host, workspace, value)
    running.sh(
        "umask 022 && cd .vscode-server && mkdir -p bin/abc &&"
        " echo '#!/bin/sh\necho kept' > bin/abc/tool && chmod 755 bin/abc/tool &&"
        " ln -s bin/abc/tool link && mkdir shut && chmod 0 shut &&"
        " echo lost > ../elsewhere && exec 3> held && echo held >&3 && sync"
    )
    return Life(running, running.sh("cat /etc/machine-id").out.strip(), done.out)


@pytest.fixture(scope="module")
def stopped(first: Life) -> Remains:
    """Stopped by the seed's function, from the other shell."""
    running = first.running
    done = functions(
        running.host,
        f"stop_kvm_sandbox {NAME} && echo stopped; is_kvm_running {NAME} && echo still there;"
        f" stop_kvm_sandbox {NAME} && echo again; stop_kvm_sandbox sandbox-never && echo never",
        shell="sh", cwd=running.workspace,
    )  # fmt: skip
    return Remains(first, done)


@pytest.fixture(scope="module")
def second(stopped: Remains) -> Life:
    """Started by logging in to the alias; where root runs it, on another user's folder."""
    before = stopped.life.running
    host = before.host
    # For another owner's uid there would have to be another template.
    host.config_file.write_text('warm = "never"\n')
    if os.geteuid() == 0:
        for path in (before.workspace, *before.workspace.rglob("*")):
            os.chown(path, OWNER, OWNER, follow_symlinks=False)
    done = host.ssh(NAME, "hostname; cat /etc/machine-id")
    hostname, machine_id = done.out.split()
    value = host.json("status", NAME)
    return Life(Running(host, before.workspace, value), machine_id, hostname)


@pytest.fixture(scope="module")
def powered_off(second: Life) -> dict[str, Any]:
    """The guest ended it."""
    running = second.running
    running.ssh("sudo -n systemctl poweroff", check=False)
    host = running.host
    wait_for(lambda: not host.room_of(NAME).folder.exists(), "the end of the guest", seconds=120)
    done = host.run("status", NAME, "--json", check=False)
    assert done.status == 3
    value: dict[str, Any] = json.loads(done.out)
    return value


def test_shell_functions_start(first: Life) -> None:
    """On the current folder, under the name that is given."""
    assert first.told.endswith("started\n")
    assert "too early" not in first.told
    assert first.running.value["workspace"] == str(first.running.workspace)


def test_shell_functions_look(first: Life) -> None:
    """Port, address, state, a session."""
    running = first.running
    done = functions(
        running.host,
        f"is_kvm_running {NAME} && echo running; get_kvm_ssh_port {NAME}; get_kvm_ip {NAME};"
        " get_kvm_ssh_port sandbox-never;"
        f" (backend_enter {NAME} <<< 'echo in $(hostname) $PWD'); (backend_enter sandbox-never)"
        " 2>&1 || echo refused",
        cwd=running.workspace,
    )
    port = running.value["ssh"]["port"]
    assert done.out.splitlines()[:4] == ["running", str(port), "localhost", ""]
    assert f"in {NAME} /home/dev" in done.out.splitlines()
    assert done.out.splitlines()[-2:] == ["Error: Could not determine SSH port", "refused"]


def test_shell_functions_refuse_what_they_cannot(first: Life) -> None:
    """A script that wants a proxy must not get a network that is open already."""
    done = functions(
        first.running.host, f"PROXY=true start_kvm_sandbox {NAME}",
        cwd=first.running.workspace, check=False,
    )  # fmt: skip
    assert done.status != 0
    assert "network" in done.err


def test_mapped_modes_live_in_attributes(first: Life) -> None:
    """The guest sees its modes and links; the host sees plain private files."""
    running, folder = first.running, first.running.workspace
    assert running.value["workspaceSecurity"] == "mapped-xattr"
    seen = running.sh(
        "cd workspace && echo hello > file && chmod 751 file && mkdir folder && chmod 700 folder &&"
        " ln -s file link && cp /bin/true tool && chmod 4755 tool && sync &&"
        " stat -c '%n %A %U' file folder link tool 'made on the host' && cat link && ./tool &&"
        " readlink link && cat 'made on the host'"
    )
    assert seen.out.splitlines() == [
        "file -rwxr-x--x dev", "folder drwx------ dev", "link lrwxrwxrwx dev",
        "tool -rwsr-xr-x dev", "made on the host -rwxr-xr-x dev",
        "hello", "file", "by the host",
    ]  # fmt: skip
    for name, kind, mode in (
        ("file", stat.S_IFREG, 0o751), ("folder", stat.S_IFDIR, 0o700),
        ("link", stat.S_IFLNK, 0o777), ("tool", stat.S_IFREG, 0o4755),
    ):  # fmt: skip
        path = folder / name
        kept = int.from_bytes(os.getxattr(path, "user.virtfs.mode"), "little")
        assert (stat.S_IFMT(kept), stat.S_IMODE(kept)) == (kind, mode)
        found = path.lstat()
        assert found.st_uid == running.host.uid
        assert stat.S_IMODE(found.st_mode) == (0o700 if kind == stat.S_IFDIR else 0o600)
    assert (folder / "file").read_text() == "hello\n"
    assert stat.S_ISREG((folder / "link").lstat().st_mode)
    assert (folder / "link").read_text() == "file"


def test_stop_is_said(stopped: Remains) -> None:
    """And fine where there is nothing to stop."""
    said = stopped.done.out.splitlines()
    assert [line for line in said if "sandbox-lives" not in line] == ["stopped", "again", "never"]


def test_stop_leaves_nothing(stopped: Remains) -> None:
    """No process, no socket, no overlay, no room, nobody on the port."""
    value, host = stopped.life.running.value, stopped.life.running.host
    wait_for(lambda: not users_of(host.folder), f"the end of {users_of(host.folder)}")
    assert not Path("/proc", str(value["pid"])).exists()
    assert not host.room_of(NAME).folder.exists()
    left = [path for path in host.base.rglob("*") if "kvm-cache" not in path.parts]
    assert [path for path in left if path.is_socket()] == []
    assert [path for path in left if path.suffix == ".qcow2"] == []
    assert listeners(value["ssh"]["port"]) == []
    assert host.run("status", NAME, check=False).status == 3
    assert NAME not in host.run("list").out
    assert NAME in host.run("list", "--all").out
    for words in (["exec", NAME, "--", "true"], ["enter", NAME], ["console", NAME]):
        done = host.run(*words, check=False)
        assert done.status == 11
        assert "stopped" in done.err


def test_ssh_does_not_start_where_the_setting_forbids(stopped: Remains) -> None:
    """It says so, and what to do."""
    host = stopped.life.running.host
    before = host.config_file.read_text()
    host.config_file.write_text(before + "[ssh]\nautostart = false\n")
    try:
        done = host.ssh(NAME, "echo in", check=False)
    finally:
        host.config_file.write_text(before)
    assert (done.status, done.out) == (255, "")
    assert "ssh.autostart is off" in done.err
    assert "sandbox start" in done.err
    assert host.run("status", NAME, check=False).status == 3


def test_ssh_starts_it_again(second: Life) -> None:
    """The same sandbox for whoever knows its name or port, a new machine by its keys."""
    was, now = second.running.host, second.running
    assert second.told == NAME
    assert now.value["state"] == "running"
    assert was.home_of(NAME).ssh_config.read_text().count(f"Port {now.value['ssh']['port']}\n") == 1
    alias = config.alias_file(was.alias_folder, NAME)
    assert alias.read_text() == was.home_of(NAME).ssh_config.read_text()


def test_lives_differ_by_their_secrets_only(stopped: Remains, second: Life) -> None:
    """Name, alias, port and client key stay; host key and machine id do not."""
    before, after = stopped.life.running.value, second.running.value
    for key in ("name", "workspace", "image", "imageDigest"):
        assert before[key] == after[key]
    for key in ("alias", "port", "configFile", "knownHostsFile", "identityFile"):
        assert before["ssh"][key] == after["ssh"][key]
    assert before["ssh"]["hostKey"] != after["ssh"]["hostKey"]
    assert stopped.life.machine_id != second.machine_id
    assert before["workspaceSecurity"] == "mapped-xattr"
    assert after["workspaceSecurity"] == "none"


def test_what_was_only_in_the_guest_is_gone(second: Life) -> None:
    """But for the workspace, which is the host's."""
    done = second.running.sh("ls -A /home/dev; ls workspace")
    assert ".bash_history" not in done.out
    assert "elsewhere" not in done.out
    assert "made on the host" in done.out


def test_what_is_to_persist_is_there_again(second: Life) -> None:
    """As it was, dev's own, although the folder has a new owner and the workspace a new model."""
    running = second.running
    done = running.sh(
        "cd .vscode-server && ./link && cat held && stat -c '%n %A %U' * bin/abc/tool"
    )
    assert done.out.splitlines() == [
        "kept", "held", "bin drwxr-xr-x dev", "held -rw-r--r-- dev", "link lrwxrwxrwx dev",
        "shut d--------- dev", "bin/abc/tool -rwxr-xr-x dev",
    ]  # fmt: skip
    assert ".vscode-server" in running.value["persist"]
    kept = running.host.home_of(NAME).persist
    assert (kept / ".vscode-server" / "held").read_text() == "held\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_another_sandbox_sees_nothing_of_it(second: Life, sandbox: Running) -> None:
    """Each has a folder of its own."""
    assert sandbox.sh(
        "ls -A .vscode-server; ls -d /var/lib/sandbox/persist/.vscode-server"
    ).out == ("/var/lib/sandbox/persist/.vscode-server\n")


def test_another_users_folder_stays_theirs(second: Life) -> None:
    """QEMU runs as the owner, so the guest's dev is the owner too."""
    running = second.running
    owner = OWNER if os.geteuid() == 0 else os.geteuid()
    running.sh("cd workspace && echo new > new && sudo -n sh -c 'echo root > root' && mkdir sub")
    for name in ("new", "root", "sub"):
        assert (running.workspace / name).lstat().st_uid == owner
    status = Path("/proc", str(running.value["pid"]), "status").read_text()
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}" in status
    assert running.sh("stat -c %U workspace workspace/new").out.split() == ["dev", "dev"]


def test_a_guest_that_powers_off_is_stopped(powered_off: dict[str, Any]) -> None:
    """Not lost: it was somebody's wish."""
    assert powered_off["state"] == "stopped"
    assert "failure" not in powered_off


def test_forget(powered_off: dict[str, Any], lives_host: Host) -> None:
    """Afterwards nothing knows the name."""
    workspace = Path(powered_off["workspace"])
    wait_for(lambda: not users_of(lives_host.folder), "the end of the supervisor")
    lives_host.run("forget", NAME)
    assert not lives_host.home_of(NAME).folder.exists()
    assert not config.alias_file(lives_host.alias_folder, NAME).exists()
    assert lives_host.json("list", "--all") == []
    assert lives_host.run("status", NAME, check=False).status == 11
    done = lives_host.run("status", "--json", cwd=workspace, check=False)
    assert json.loads(done.out)["name"] == "sandbox-project"
