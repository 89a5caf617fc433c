"""Method → verb, a few lines each; what a request means is decided elsewhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_rpc.config import sources
from sandbox_rpc.config.settings import SETTINGS
from sandbox_rpc.host import names
from sandbox_rpc.host.names import Record
from sandbox_rpc.host.paths import Layout
from sandbox_rpc.images import reference
from sandbox_rpc.protocol import images as i
from sandbox_rpc.protocol import network as n
from sandbox_rpc.protocol import templates as m
from sandbox_rpc.protocol import types as t
from sandbox_rpc.protocol import workspace as w
from sandbox_rpc.sandboxes import allowlist, audit, images, persist, ports, templates
from sandbox_rpc.sandboxes.changes import changes
from sandbox_rpc.sandboxes.doctor import examine
from sandbox_rpc.sandboxes.find import by_folder
from sandbox_rpc.sandboxes.start import Start, start
from sandbox_rpc.sandboxes.status import every, of_folder, status
from sandbox_rpc.sandboxes.stop import stop
from sandbox_rpc.server.progress import reporting
from sandbox_rpc.server.rpc import Call, Handler, invalid

Notify = Callable[[str, Any], None]


class Answers:
    """The requests that need no state of their own; exec and consoles are in `streams`."""

    def __init__(self, layout: Layout, notify: Notify) -> None:
        self._layout = layout
        self._notify = notify

    @property
    def table(self) -> dict[str, Handler]:
        """Handlers by method."""
        return {
            "sandbox/start": self.start,
            "sandbox/stop": self.stop,
            "sandbox/status": self.status,
            "sandbox/changes": self.changes,
            "sandbox/list": self.list_,
            "port/forward": self.port_forward,
            "port/close": self.port_close,
            "network/status": self.network_status,
            "network/allow": self.network_allow,
            "network/block": self.network_block,
            "network/reset": self.network_reset,
            "network/log": self.network_log,
            "persist/put": self.persist_put,
            "host/doctor": self.doctor,
            "image/list": self.image_list,
            "image/check": self.image_check,
            "image/build": self.image_build,
            "image/pull": self.image_pull,
            "image/push": self.image_push,
            "image/import": self.image_import,
            "image/export": self.image_export,
            "image/remove": self.image_remove,
            "image/prune": self.image_prune,
            "template/list": self.template_list,
            "template/build": self.template_build,
            "template/remove": self.template_remove,
        }

    async def start(self, params: t.StartParams, call: Call) -> t.Sandbox:
        """`sandbox/start`."""
        wanted = Start(
            params.workspace, params.name, _settings(params), params.user_settings or {},
            force=params.force,
        )  # fmt: skip
        with reporting(self._notify, call.token, "Starting sandbox") as report:
            return await start(self._layout, wanted, report=report, cancel=call.cancel)

    async def stop(self, params: t.StopParams, call: Call) -> t.Sandbox:
        """`sandbox/stop`."""
        record = self._record(params.name, params.workspace)
        with reporting(self._notify, call.token, "Stopping sandbox") as report:
            return await stop(self._layout, record, force=params.force, report=report)

    async def status(self, params: t.Target, call: Call) -> t.Sandbox:
        """`sandbox/status`."""
        if params.name is None and params.workspace is not None:
            return await of_folder(self._layout, params.workspace)
        return await status(self._layout, self._record(params.name, params.workspace))

    async def changes(self, params: t.Target, call: Call) -> w.Changes:
        """`sandbox/changes`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(changes, self._layout, record)

    async def list_(self, params: t.ListParams, call: Call) -> list[t.Sandbox]:
        """`sandbox/list`."""
        return await every(self._layout, stopped=params.stopped)

    async def port_forward(self, params: t.PortForwardParams, call: Call) -> t.Forward:
        """`port/forward`."""
        record = self._record(params.name, params.workspace)
        return await ports.forward(self._layout, record, params.guest_port, params.host_port)

    async def port_close(self, params: t.PortCloseParams, call: Call) -> t.Forward:
        """`port/close`."""
        record = self._record(params.name, params.workspace)
        return await ports.close(self._layout, record, params.host_port)

    async def network_status(self, params: t.Target, call: Call) -> n.NetworkState:
        """`network/status`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(allowlist.status, self._layout, record)

    async def network_allow(self, params: n.NetworkAllowParams, call: Call) -> n.NetworkRules:
        """`network/allow`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(
            partial(allowlist.allow, self._layout, record, params.rules, once=params.once)
        )

    async def network_block(self, params: n.NetworkBlockParams, call: Call) -> n.NetworkRules:
        """`network/block`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(
            partial(allowlist.block, self._layout, record, params.rules, once=params.once)
        )

    async def network_reset(self, params: n.NetworkResetParams, call: Call) -> n.NetworkRules:
        """`network/reset`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(allowlist.reset, self._layout, record, params.rules)

    async def network_log(self, params: n.NetworkLogParams, call: Call) -> list[n.NetworkLogEntry]:
        """`network/log`."""
        record = self._record(params.name, params.workspace)
        return await anyio.to_thread.run_sync(
            partial(
                audit.log, self._layout, record, limit=params.limit, only_blocked=params.blocked
            )
        )

    async def persist_put(self, params: t.PersistPutParams, call: Call) -> t.PersistPutResult:
        """`persist/put`."""
        call.undo = True
        record = names.read(self._layout, params.name)
        with reporting(self._notify, call.token, "Copying into the sandbox") as report:
            return await persist.put(
                self._layout, record, params.source, params.target,
                report=report, cancel=call.cancel,
            )  # fmt: skip

    async def doctor(self, params: object, call: Call) -> t.Doctor:
        """`host/doctor`."""
        settings = sources.load(None, {}).settings
        return await anyio.to_thread.run_sync(
            examine, self._layout, settings.qemu_binary, settings.warm
        )

    async def image_list(self, params: object, call: Call) -> list[i.Image]:
        """`image/list`."""
        return await images.list_(self._layout)

    async def image_check(self, params: object, call: Call) -> list[i.Image]:
        """`image/check`."""
        return await images.list_(self._layout, check=True)

    async def image_build(self, params: i.ImageBuildParams, call: Call) -> i.Image:
        """`image/build`."""
        call.undo = True
        with reporting(self._notify, call.token, "Building image") as report:
            ref = reference.BUILT if params.ref is None else params.ref
            return await images.build(self._layout, ref, report=report, cancel=call.cancel)

    async def image_pull(self, params: i.ImagePullParams, call: Call) -> i.Image:
        """`image/pull`."""
        call.undo = True
        settings = sources.load(None, {}).settings
        ref = params.ref or settings.image
        with reporting(self._notify, call.token, f"Pulling {ref}") as report:
            return await images.pull(
                self._layout, ref, key=settings.pull_key, report=report, cancel=call.cancel
            )

    async def image_push(self, params: i.ImagePushParams, call: Call) -> i.ImagePublished:
        """`image/push`."""
        call.undo = True
        with reporting(self._notify, call.token, f"Pushing {params.ref}") as report:
            return await images.push(
                self._layout, params.ref, params.to, report=report, cancel=call.cancel
            )

    async def image_import(self, params: i.ImageImportParams, call: Call) -> i.Image:
        """`image/import`."""
        call.undo = True
        with reporting(self._notify, call.token, "Importing image") as report:
            return await images.import_(
                self._layout, params.path, params.ref, name=params.name,
                report=report, cancel=call.cancel,
            )  # fmt: skip

    async def image_export(self, params: i.ImageExportParams, call: Call) -> i.ImagePublished:
        """`image/export`."""
        call.undo = True
        with reporting(self._notify, call.token, f"Exporting {params.ref}") as report:
            return await images.export(
                self._layout, params.ref, params.path, report=report, cancel=call.cancel
            )

    async def image_remove(self, params: i.ImageRemoveParams, call: Call) -> None:
        """`image/remove`."""
        await anyio.to_thread.run_sync(images.remove, self._layout, params.ref)

    async def image_prune(self, params: i.ImagePruneParams, call: Call) -> i.ImagePruned:
        """`image/prune`."""
        return await images.prune(self._layout, all_=params.all)

    async def template_list(self, params: object, call: Call) -> list[m.Template]:
        """`template/list`."""
        return await anyio.to_thread.run_sync(templates.every, self._layout)

    async def template_build(self, params: m.TemplateBuildParams, call: Call) -> m.Template:
        """`template/build`."""
        call.undo = True
        with reporting(self._notify, call.token, "Making template") as report:
            return await templates.build(
                self._layout, _settings(params), report=report, cancel=call.cancel
            )

    async def template_remove(self, params: m.TemplateRemoveParams, call: Call) -> None:
        """`template/remove`."""
        await anyio.to_thread.run_sync(templates.remove, self._layout, params.key)

    def _record(self, name: str | None, workspace: str | None) -> Record:
        if name is not None:
            return names.read(self._layout, name)
        if workspace is not None:
            return by_folder(self._layout, workspace).record
        raise invalid("name or workspace is required")


def _settings(params: t.StartParams | m.TemplateBuildParams) -> dict[str, object]:
    """The settings that the client has set, by key."""
    fields = {a.name for a in attrs.fields(type(params))}
    given = {
        setting.key: getattr(params, setting.attribute)
        for setting in SETTINGS
        if setting.attribute in fields
    }
    return {key: value for key, value in given.items() if value is not None}


def decoded(data: str, field: str) -> bytes:
    """Bytes from base64.

    Raises:
        JsonRpcInvalidParams: it is not base64.
    """
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("not base64", field) from None


def encoded(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()
