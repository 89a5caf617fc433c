"""The templates that sandboxes start from: seen, made beforehand, removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import anyio

from sandbox_rpc.config import sources
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.protocol.errors import TemplateInvalid
from sandbox_rpc.protocol.progress import Report, silent
from sandbox_rpc.protocol.templates import Template
from sandbox_rpc.qemu import store
from sandbox_rpc.supervisor.ground import survey
from sandbox_rpc.supervisor.image import ensure
from sandbox_rpc.supervisor.request import Place, StartRequest
from sandbox_rpc.supervisor.template import Missing, obtain
from sandbox_rpc.supervisor.warm import unfit
from sandbox_rpc.supervisor.wire import RequestCancelled


def every(layout: Layout) -> list[Template]:
    """All that are whole, the last used one first."""
    return [_value(one) for one in store.every(layout)]


async def build(
    layout: Layout,
    settings: Mapping[str, object],
    *,
    report: Report = silent,
    cancel: anyio.Event | None = None,
) -> Template:
    """Make the template that starts with these settings, by key, would make; or find it there.

    Works in this process; setting `cancel` leaves nothing of it behind.

    Raises:
        TemplateInvalid: none can be made; says why.
        RequestCancelled: `cancel` was set.
        SandboxError: what a start with these settings would raise before it boots.
    """
    layout.make()
    request = StartRequest(str(layout.base), sources.load(None, settings).settings)
    found: list[store.Template | Missing] = []

    async def work() -> None:
        ground = await survey(Place(layout, "template"), request, folder=str(layout.base))
        choice = await ensure(layout, None, request.settings, report)
        if (reason := unfit(choice.image)) is not None:
            found.append(Missing(reason))
        else:
            found.append(await obtain(layout, ground, choice.image, report, retry=True))

    async with anyio.create_task_group() as group:

        async def obey(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        if cancel is not None:
            group.start_soon(obey, cancel)
        await work()
        group.cancel_scope.cancel()
    if not found:
        raise RequestCancelled
    if isinstance(found[0], Missing):
        reason = found[0].reason
        raise TemplateInvalid(f"{reason[:1].upper()}{reason[1:].rstrip('.')}.")
    return _value(found[0])


def remove(layout: Layout, key: str) -> int:
    """Remove the template whose key begins so; the bytes that frees. Machines that run keep theirs.

    Raises:
        TemplateNotFound: there is none, or there are several.
    """
    return store.discard(layout, store.expand(layout, key))


def remove_all(layout: Layout) -> int:
    """Remove all of them; the bytes that frees."""
    return store.prune(layout, lambda _: False)


def prune(layout: Layout) -> int:
    """Remove those that are damaged or whose image is gone; the bytes that frees."""
    return store.prune(layout, lambda one: store.has_image(layout, one))


def _value(template: store.Template) -> Template:
    origin = template.facts.origin
    used_at = datetime.fromtimestamp(template.used_at, UTC)
    return Template(
        key=template.key,
        image=origin.image,
        image_digest=origin.image_digest,
        accelerator=origin.accelerator,
        memory_mib=origin.memory_mib,
        cpus=origin.cpus,
        disk_mib=origin.disk_mib,
        qemu=origin.qemu,
        size_bytes=template.size_bytes,
        created_at=template.facts.created_at,
        used_at=used_at.isoformat(timespec="milliseconds"),
    )
