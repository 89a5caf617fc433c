"""Fixtures for tests on real virtual machines. The API that tests rely on:

Session fixtures

`built`          the folder `kvm-cache` with the default image, read-only for tests. It is built by
                 the real `sandbox image build`, unless SANDBOX_TEST_CACHE names a cache base whose
                 kvm-cache has the image already.
`make_host`      `make_host(label, ordinary=False, prefix=(), own_templates=False) -> Host`: a new
                 user with everything of its own but the images, and, unless asked for, the
                 templates; all that it starts is ended at the end of the session, also when tests
                 fail. With `ordinary=True` uid 12345, where the tests run as root. `prefix` goes
                 before every command line.
`host`           the `Host` of the user who runs the tests (root in CI).
`user_host`      the `Host` of uid 12345 (where the tests do not run as root: the same user again).
`island`         `Island`: namespaces with a host, a LAN and an internet of their own, for sandboxes
                 whose network is to be known; `make_host(label, prefix=island.prefix)`.
`island_host`    the `Host` in it.
`agent`          `SshAgent`: a real ssh-agent of `host` with one key; `sandbox` was started with it.
`sandbox`        `Running`: one sandbox of `host` that most tests share, booted from a kernel. Leave
                 it running.
`user_sandbox`   `Running`: one sandbox of `user_host`, shared by the tests about owners; it goes on
                 from a template.
`either`         the one and the other: a test that takes it runs on both.

A start costs a boot with `--warm never` only; without, tests that need a fresh guest get a clone of
the template that the first of them has made.

`tests.vm.host.Host` (see there for all)

`run(*words, input=None, check=True, cwd=None, env=None, timeout=400) -> Done`
                 the real `sandbox WORDS` as this user; `Done` has status, out, err, raw (bytes).
                 With check=True another status than 0 raises AssertionError with all output.
`json(*words)`   the same with --json, parsed.
`start(workspace, *words)`  `sandbox start --json`, parsed.
`call(argv, ...)`, `popen(argv, ...)`  any program as this user, with its environment.
`ssh(name, command, *options)`  the plain OpenSSH client; `sh(name, script)` the same over one
                 shared login, for looking around in the guest cheaply.
`workspace(name)` a new folder of this user; `folder`, `base`, `home`, `alias_folder`,
                 `config_file`, `layout`, `home_of(name)`, `room_of(name)` are paths.
`qemu_pid(name)`, `supervisor_pid(name)`  by lock and by greeting.
`extra`          further environment for every later command of this host.
`close()`        ends all: `sandbox stop --all --force`, then whoever holds its locks, by pidfd.

`tests.vm.host.wait_for(question, what, seconds=30)` waits for what cannot report, within a limit.

`Running` has host, name, workspace (Path), value (the dict of `start --json`), `run` (a command
line in the guest by `sandbox exec`), `sh(script)`, `ssh(command, *options)`.

Every test below this folder has the mark `vm`; the mark `last` moves a test to the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from sandbox_rpc.images.reference import BUILT as DEFAULT_REF
from tests.vm import host as hosts
from tests.vm.host import Done, Host
from tests.vm.island import Island

HERE = Path(__file__).parent
MakeHost = Callable[..., Host]


def pytest_configure(config: pytest.Config) -> None:
    """Know our mark."""
    config.addinivalue_line("markers", "last: runs after all others, since it ends what they share")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts machines, and put what ends the shared ones last."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vm)


@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def pytest_order(items: list[pytest.Item]) -> None:
    """After pytest's own sorting by fixtures."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@frozen
class Running:
    """A sandbox that runs."""

    host: Host
    workspace: Path
    value: dict[str, Any]
    starts: tuple[dict[str, Any], ...] = ()
    """What each of the commands printed that started it together."""

    @property
    def name(self) -> str:
        return str(self.value["name"])

    def run(self, *argv: str, **options: Any) -> Done:
        """Run a command in the guest by `sandbox exec`."""
        return self.host.run("exec", self.name, "--", *argv, **options)

    def sh(self, script: str, **options: Any) -> Done:
        """Run a shell script in the guest, cheaply; it starts in dev's home folder."""
        return self.host.sh(self.name, script, **options)

    def ssh(self, command: str, *options: str, **more: Any) -> Done:
        """Run a command by a login of its own."""
        return self.host.ssh(self.name, command, *options, **more)


@frozen
class SshAgent:
    """An ssh-agent that runs."""

    socket: Path
    key: Path
    """Private half of the one key in it; the public one is beside it."""


@pytest.fixture(scope="session")
def top() -> Iterator[Path]:
    """A folder every user can reach."""
    folder = hosts.make_top()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def built(top: Path) -> Path:
    """The folder kvm-cache with the default image."""
    given = os.environ.get("SANDBOX_TEST_CACHE")
    base = Path(given) if given else top / "built"
    cache = base / "kvm-cache"
    if not (cache / "refs" / f"{DEFAULT_REF}.json").exists():
        subprocess.run(
            [*hosts.our_program(), "image", "build"],
            env={**os.environ, "SANDBOX_CACHE_BASE": str(base)},
            stdin=subprocess.DEVNULL, check=True, timeout=900,
        )  # fmt: skip
    return cache.resolve()


@pytest.fixture(scope="session")
def make_host(top: Path, built: Path) -> Iterator[MakeHost]:
    """Make users; all they have started ends here."""
    made: list[Host] = []
    programs: list[list[str]] = []

    def make(
        label: str,
        *,
        ordinary: bool = False,
        prefix: Sequence[str] = (),
        own_templates: bool = False,
    ) -> Host:
        uid = hosts.ORDINARY if ordinary and os.geteuid() == 0 else None
        program = hosts.our_program()
        if uid is not None:
            if not programs:
                programs.append(hosts.installation(top))
            program = programs[0]
        made.append(
            hosts.make_host(
                top, label, built, uid=uid, program=program, own_templates=own_templates
            )
        )
        made[-1].prefix[:0] = prefix
        return made[-1]

    # A run that is told to end, as CI does at its limit, takes its machines along too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield make
    finally:
        for host in reversed(made):
            host.close()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def host(make_host: MakeHost) -> Host:
    """The user who runs the tests."""
    return make_host("me")


@pytest.fixture(scope="session")
def user_host(make_host: MakeHost) -> Host:
    """An ordinary user whose uid is not the guest's."""
    return make_host("user", ordinary=True)


@pytest.fixture(scope="session")
def island(top: Path) -> Iterator[Island]:
    """The namespaces; each host that lives in them must be closed before they go."""
    made = Island(top / "island")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def island_host(island: Island, make_host: MakeHost) -> Iterator[Host]:
    """A user whose whole network is the island's."""
    made = make_host("islander", prefix=island.prefix)
    yield made
    made.close()


@pytest.fixture(scope="session")
def agent(host: Host) -> Iterator[SshAgent]:
    """An ssh-agent with one key."""
    socket, key = host.folder / "tmp" / "agent", host.home / "agent-key"
    host.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "from agent", "-f", str(key)])
    process = host.popen(
        ["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        hosts.wait_for(socket.exists, "ssh-agent")
        host.call(["ssh-add", "-q", str(key)], env={"SSH_AUTH_SOCK": str(socket)})
        yield SshAgent(socket, key)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def sandbox(host: Host, agent: SshAgent) -> Running:
    """The shared sandbox, started by two commands at the same time."""
    workspace = host.workspace("shared")
    (workspace / "sub" / "folder").mkdir(parents=True)
    words = [*host.program, "start", str(workspace), "--json", "--warm", "never"]
    children = [host.popen(words, env={"SSH_AUTH_SOCK": str(agent.socket)}) for _ in range(2)]
    answers = [child.communicate(timeout=hosts.LIMIT_S) for child in children]
    for child, (_, err) in zip(children, answers, strict=True):
        assert child.returncode == 0, err.decode()
    values = tuple(json.loads(out) for out, _ in answers)
    return Running(host, workspace, values[0], values)


@pytest.fixture(scope="session")
def user_sandbox(user_host: Host) -> Running:
    """The ordinary user's sandbox."""
    workspace = user_host.workspace("ordinary")
    return Running(user_host, workspace, user_host.start(workspace))


@pytest.fixture(scope="session", params=["sandbox", "user_sandbox"], ids=["root", "user"])
def either(request: pytest.FixtureRequest) -> Running:
    """Both, one after the other."""
    found: Running = request.getfixturevalue(request.param)
    return found
