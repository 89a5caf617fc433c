"""Who the guest is to be: fresh keys, and the files by which it learns of them."""

from __future__ import annotations

import secrets

import anyio

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.host import files
from sandbox_rpc.host.paths import CREDENTIAL_PREFIX
from sandbox_rpc.qemu.box import Box
from sandbox_rpc.ssh import keys
from sandbox_rpc.supervisor.enclose import hand_over
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.supply import PROXY_URL, Supply, find


async def make_identity(place: Place, settings: Settings, box: Box) -> tuple[Identity, str, Supply]:
    """A fresh identity with its host key, the public half of that, and where packages are from."""
    found: dict[str, object] = {}

    async def host() -> None:
        found["host"] = await keys.make_pair(place.name, place.room.folder)

    async def client() -> None:
        found["client"] = await keys.ensure_client_key(place.home.client_key, f"to {place.name}")

    async def agent() -> None:
        found["agent"] = await keys.agent_keys() if settings.ssh_agent_keys else ()

    async def supply() -> None:
        found["supply"] = await find(settings)

    try:
        async with anyio.create_task_group() as group:
            for work in (host, client, agent, supply):
                group.start_soon(work)
    except ExceptionGroup as errors:
        raise unwrapped(errors) from None
    pair = found["host"]
    assert isinstance(pair, keys.KeyPair)
    supplied = found["supply"]
    assert isinstance(supplied, Supply)
    allowed = (found["client"], *found["agent"])  # type: ignore[misc]
    account = box.account
    return (
        Identity(
            hostname=guest.hostname_of(place.name),
            machine_id=secrets.token_hex(16),
            authorized_keys=tuple(str(key) for key in allowed),
            host_key=pair.private,
            environment={
                "SANDBOX_CONTAINER": place.name,
                **(guest.proxy_environment(PROXY_URL) if settings.network is Network.PROXY else {}),
                **supplied.packages.environment,
            },
            packages=supplied.packages,
            persist=tuple(settings.persisted),
            # Without them a program in the guest fails at once instead of asking nobody.
            router=None if settings.network is Network.OPEN else "",
            dns=None if settings.network is Network.OPEN else "",
            # Root cannot be mapped away without a namespace, and dev is never root in the guest.
            uid=None if box.maps_to_dev or account.uid == 0 else account.uid,
            gid=None if box.maps_to_dev or account.uid == 0 else account.gid,
        ),
        " ".join(pair.public.split()[:2]),
        supplied,
    )


def write_credentials(place: Place, identity: Identity, box: Box) -> tuple[str, ...]:
    """Write the SMBIOS files into QEMU's folder; their names there."""
    names = []
    for name, value in guest.credentials(identity).items():
        path = place.room.qemu / f"{CREDENTIAL_PREFIX}{name}"
        files.replace(path, guest.smbios(name, value))
        hand_over(path, box)
        names.append(path.name)
    return tuple(names)
