"""Who the guest is to be: fresh keys, and the files by which it learns of them."""

from __future__ import annotations

import secrets

import anyio
from attrs import frozen

from sandbox_rpc.config.choices import Network
from sandbox_rpc.config.values import Settings
from sandbox_rpc.guest import dialects
from sandbox_rpc.guest import identity as guest
from sandbox_rpc.guest.identity import Identity
from sandbox_rpc.host import files
from sandbox_rpc.host.paths import CREDENTIAL_PREFIX
from sandbox_rpc.images.store import StoredImage
from sandbox_rpc.qemu.box import Box
from sandbox_rpc.ssh import keys
from sandbox_rpc.supervisor.enclose import hand_over
from sandbox_rpc.supervisor.operation import unwrapped
from sandbox_rpc.supervisor.request import Place
from sandbox_rpc.supervisor.supply import PROXY_URL, Supply, find


@frozen
class Told:
    """The files by which a guest learns who it is, as names in QEMU's folder."""

    credentials: tuple[str, ...]
    """SMBIOS strings."""
    fw_cfg: tuple[tuple[str, str], ...] = ()
    """fw_cfg names and their files."""
    seed: str | None = None
    """A disk for cloud-init."""

    @property
    def files(self) -> list[str]:
        """All of them; nobody needs them once QEMU has them."""
        seed = [self.seed] if self.seed else []
        return [*self.credentials, *(path for _, path in self.fw_cfg), *seed]


NOTHING = Told(())
"""For a guest that hears it from the agent, or is to be nobody yet."""


async def make_identity(
    place: Place, settings: Settings, box: Box, image: StoredImage
) -> tuple[Identity, str, Supply]:
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
            host_key_file=image.host_key_file,
            environment={
                # An editor that finds no language here sets its own, which this guest may not have.
                "LANG": "C.UTF-8",
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


def introduce(
    place: Place, identity: Identity, host_key: str, box: Box, image: StoredImage
) -> Told:
    """Write the files for a guest into QEMU's folder, in all dialects its image may understand.

    Raises:
        SettingInvalid: they do not fit into SMBIOS.
    """
    credentials = guest.credentials(identity)
    others: dict[str, bytes] = {}
    if image.foreign:
        others = dialects.fw_cfg(identity)
        if not image.agent and image.systemd >= dialects.TMPFILES:
            credentials["tmpfiles.extra"] = dialects.tmpfiles(identity)
    if image.injects_agent:
        more, large = dialects.injected(identity)
        credentials |= more
        others |= large

    def write(name: str, content: bytes) -> str:
        path = place.room.qemu / f"{CREDENTIAL_PREFIX}{name}"
        files.replace(path, content)
        hand_over(path, box)
        return path.name

    return Told(
        tuple(write(name, guest.smbios(name, value)) for name, value in credentials.items()),
        tuple(
            (name, write(f"fw_cfg.{number}", value))
            for number, (name, value) in enumerate(others.items())
        ),
        write("seed.iso", dialects.seed(identity, host_key)) if image.cloud_init else None,
    )


def command_line(image: StoredImage) -> str:
    """The kernel's arguments."""
    line = image.kernel_command_line
    return f"{line} {dialects.WANTED}" if image.injects_agent else line
