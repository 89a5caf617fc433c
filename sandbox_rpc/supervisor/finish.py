"""From a QEMU that runs to a sandbox that is ready; an adopter of a start goes on here too."""

from __future__ import annotations

from functools import partial

import anyio

from sandbox_rpc.console import hub
from sandbox_rpc.host import files, names
from sandbox_rpc.protocol.errors import (
    StartTimeout,
)
from sandbox_rpc.protocol.types import Sandbox, Ssh, StartKind, Startup, State
from sandbox_rpc.ssh import config, login
from sandbox_rpc.supervisor import alias
from sandbox_rpc.supervisor.ended import unless_ended
from sandbox_rpc.supervisor.hear import first_word
from sandbox_rpc.supervisor.request import Launch, Place
from sandbox_rpc.supervisor.settle import settle
from sandbox_rpc.supervisor.state import Store
from sandbox_rpc.supervisor.steps import Steps
from sandbox_rpc.supervisor.vm import Vm

NO_AGENT = "the image has no agent, and its system takes none along (systemd 256 does)"


async def finish(
    place: Place, launch: Launch, vm: Vm, store: Store, steps: Steps, *, forgive: bool = True
) -> Sandbox:
    """Wait until the guest is ready, prove it by a login, and say `running`.

    `forgive`: as for `first_word`.

    Raises:
        StartTimeout: it took too long.
        QemuFailed: QEMU ended on the way.
        GuestFailed, SshUnreachable: the guest is up but does not do what it should.
    """
    await publish(place, launch, vm, store)
    began = anyio.current_time()
    with anyio.move_on_after(launch.start_limit_s):
        first = partial(
            first_word, vm, launch.accelerator, launch.request.settings.cpus, steps.say,
            forgive=forgive,
        )  # fmt: skip

        async def log_in() -> None:
            left = launch.start_limit_s - (anyio.current_time() - began)
            await login.prove(place.home.ssh_config, place.name, timeout_s=max(1.0, left - 1.0))

        if launch.agent:
            with steps.step("kernel", "Booting the kernel"):
                await first()
            with steps.step("boot", "Waiting for the system"):
                await unless_ended(vm, vm.agent.ready())
        with steps.step("login", "Logging in"):
            await (unless_ended(vm, log_in()) if launch.agent else first(word=log_in))
        if launch.agent:
            await vm.agent.tell("proceed")
        else:
            with steps.step("settle", "Mounting the workspace"):
                work = settle(place.home.ssh_config, place.name, launch.environment)
                await unless_ended(vm, work)
        return say_running(launch, store, steps)
    raise StartTimeout(
        f"The guest did not come up within {launch.start_limit_s:.0f} s; "
        f"it got as far as `{store.sandbox.phase}`.",
        hint="Look at the end of the console output; start.timeout gives it more time.",
        phase=store.sandbox.phase,
        console=hub.tail(place.room.console_log),
    )


def say_running(launch: Launch, store: Store, steps: Steps) -> Sandbox:
    """Tell everyone that a login has succeeded, and how it came to that."""
    kind = StartKind.COLD if launch.template is None else StartKind.WARM
    return store.change(
        state=State.RUNNING,
        phase=None,
        startup=Startup(kind, steps.phases, reason=launch.cold_reason),
    )


async def publish(place: Place, launch: Launch, vm: Vm, store: Store) -> None:
    """Open the way into the guest and write down where it is, for ssh and for everyone else.

    Raises:
        NetworkFailed: there is no port.
    """
    port = await vm.forward_ssh(
        names.read(place.layout, place.name).last_port, launch.guest_ssh_port
    )
    names.remember_port(place.layout, place.name, port)
    endpoint = config.Endpoint(port, launch.host_key)
    alias.point(place, endpoint)
    files.replace(place.room.ssh_port, f"{port}\n")
    store.change(ssh=endpoint_value(place, endpoint))


def endpoint_value(place: Place, endpoint: config.Endpoint) -> Ssh:
    """How clients reach the guest."""
    return Ssh(
        host=config.LOOPBACK,
        port=endpoint.port,
        user=config.USER,
        alias=place.name,
        config_file=str(place.home.ssh_config),
        known_hosts_file=str(place.home.known_hosts),
        identity_file=str(place.home.client_key),
        host_key=endpoint.host_key,
    )
