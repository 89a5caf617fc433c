"""The plain OpenSSH client: pinned, without prompts, with nothing of the user's in the guest."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

from sandbox_rpc.ssh import config
from tests.vm.conftest import Running, SshAgent
from tests.vm.host import Host

LISTENING = "0A"


def listeners(port: int) -> list[tuple[str, str]]:
    """Table and address of every socket on this host that listens on a TCP port."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if fields[3] == LISTENING and int(number, 16) == port:
                found.append((table, address))
    return found


def real_home(host: Host) -> Path:
    """The home that OpenSSH takes: that of the user's entry, not $HOME."""
    return host.home if host.prefix else Path(pwd.getpwuid(host.uid).pw_dir)


def snapshot(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_login_is_strict_silent_and_leaves_no_trace(sandbox: Running) -> None:
    """Nothing on stderr, and the user's own files as they were."""
    known = real_home(sandbox.host) / ".ssh" / "known_hosts"
    before = snapshot(known)
    done = sandbox.ssh("true", "-o", "StrictHostKeyChecking=yes")
    assert (done.out, done.err) == ("", "")
    assert snapshot(known) == before
    assert not (sandbox.host.home / ".ssh" / "known_hosts").exists()


def test_alias_in_the_users_folder(user_sandbox: Running) -> None:
    """`ssh sandbox-NAME` with nothing but an Include of that folder in the user's config."""
    host = user_sandbox.host
    ssh = host.home / ".ssh"
    (ssh / "config").write_text(f"Include {host.alias_folder}/*\n")
    host.give(ssh / "config")
    (ssh / "known_hosts").write_text("untouched ssh-ed25519 AAAA\n")
    host.give(ssh / "known_hosts")
    copy = config.alias_file(host.alias_folder, user_sandbox.name)
    assert copy.read_text() == host.home_of(user_sandbox.name).ssh_config.read_text()
    argv = ["ssh", "-F", str(ssh / "config"), "-o", "BatchMode=yes", user_sandbox.name, "hostname"]
    done = host.call(argv)
    assert (done.out, done.err) == (f"{user_sandbox.name}\n", "")
    assert (ssh / "known_hosts").read_text() == "untouched ssh-ed25519 AAAA\n"


def test_alias_by_the_index(sandbox: Running) -> None:
    """The file that a user includes once for all sandboxes."""
    index = str(sandbox.host.layout.ssh_config)
    done = sandbox.host.call(["ssh", "-F", index, "-o", "BatchMode=yes", sandbox.name, "id -un"])
    assert done.out == "dev\n"


def test_another_host_key_is_refused(sandbox: Running) -> None:
    """Before anything is sent that a stranger could use."""
    host = sandbox.host
    key = host.home / "stranger"
    host.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    wrong = host.home / "wrong_known_hosts"
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    wrong.write_text(config.known_hosts_line(sandbox.name, public))
    done = sandbox.ssh("echo in", "-o", f"UserKnownHostsFile={wrong}", check=False)
    assert done.status == 255
    assert done.out == ""
    assert "Host key verification failed" in done.err


def test_an_unknown_host_key_is_refused(sandbox: Running) -> None:
    """An emptied file is no invitation."""
    done = sandbox.ssh("echo in", "-o", "UserKnownHostsFile=/dev/null", check=False)
    assert (done.status, done.out) == (255, "")


def test_agent_is_not_forwarded_even_with_a(sandbox: Running, agent: SshAgent) -> None:
    """What runs in the guest must not sign in the user's name."""
    done = sandbox.ssh(
        "echo [$SSH_AUTH_SOCK]; ls /tmp/ssh-* 2>/dev/null; ssh-add -l 2>&1",
        "-A", env={"SSH_AUTH_SOCK": str(agent.socket)}, check=False,
    )  # fmt: skip
    assert done.out.startswith("[]\nCould not open a connection"), done.out


def test_keys_of_the_agent_may_log_in(sandbox: Running, agent: SshAgent) -> None:
    """As the seed has it; with this key alone, signed by the agent."""
    ssh = sandbox.value["ssh"]
    public = agent.key.with_suffix(".pub")
    argv = [
        "ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={ssh['knownHostsFile']}", "-o", f"HostKeyAlias={sandbox.name}",
        "-i", str(public), "-p", str(ssh["port"]), "dev@127.0.0.1", "cat .ssh/authorized_keys",
    ]  # fmt: skip
    done = sandbox.host.call(argv, env={"SSH_AUTH_SOCK": str(agent.socket)})
    own = sandbox.host.home_of(sandbox.name).client_key_public.read_text()
    assert sorted(done.out.splitlines()) == sorted([own.strip(), public.read_text().strip()])


def test_no_other_key_may_log_in(sandbox: Running) -> None:
    """Nor a password, nor root."""
    host = sandbox.host
    key = host.home / "other"
    host.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    ssh = sandbox.value["ssh"]
    common = [
        "ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={ssh['knownHostsFile']}", "-o", f"HostKeyAlias={sandbox.name}",
        "-p", str(ssh["port"]),
    ]  # fmt: skip
    stranger = host.call([*common, "-i", str(key), "dev@127.0.0.1", "true"], check=False)
    assert stranger.status == 255
    assert "Permission denied (publickey)" in stranger.err
    root = host.call([*common, "-i", ssh["identityFile"], "root@127.0.0.1", "true"], check=False)
    assert "Permission denied (publickey)" in root.err


def test_port_is_on_loopback_only(sandbox: Running) -> None:
    """The seed's listens on every interface."""
    port = sandbox.value["ssh"]["port"]
    assert listeners(port) == [("tcp", "0100007F")]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        assert stream.recv(4) == b"SSH-"


def test_private_files_are_private(sandbox: Running) -> None:
    """Keys, sockets and state are for their user only."""
    home, room = sandbox.host.home_of(sandbox.name), sandbox.host.room_of(sandbox.name)
    paths = [sandbox.host.base, home.folder, room.folder]
    paths += [*home.folder.rglob("*"), *room.folder.rglob("*")]
    # What is below it has the modes that the guest gives it; nobody else gets that far.
    paths = [path for path in paths if home.persist not in path.parents]
    assert home.persist in paths
    open_to_others = [str(path) for path in paths if os.lstat(path).st_mode & 0o077]
    assert open_to_others == []
