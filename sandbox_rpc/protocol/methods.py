"""The method table: what the server answers and announces, and how each may fail."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from sandbox_rpc.protocol import errors as e
from sandbox_rpc.protocol import images as i
from sandbox_rpc.protocol import network as n
from sandbox_rpc.protocol import streams as s
from sandbox_rpc.protocol import templates as m
from sandbox_rpc.protocol import types as t
from sandbox_rpc.protocol import workspace as w
from sandbox_rpc.protocol.errors import SandboxError

VERSION = "1.0"
"""major.minor; a minor version adds, a major one breaks."""


@frozen
class Request:
    """A request of the client."""

    method: str
    params: type | None
    result: Any
    """A type, `list[...]` of one, or None."""
    doc: str
    errors: tuple[type[SandboxError], ...] = ()
    progress: bool = False
    """Whether it takes `workDoneToken` and reports."""
    since: str = "1.0"


@frozen
class Notification:
    """A message without answer."""

    method: str
    params: type
    doc: str
    to_server: bool = False
    since: str = "1.0"


_RULES = (
    e.SandboxNotFound, e.WorkspaceRefused, e.RuleInvalid, e.PermissionDenied, e.DiskFull,
)  # fmt: skip

REQUESTS = (
    Request(
        "sandbox/start", t.StartParams, t.Sandbox,
        "Start a folder's sandbox, join its start, or return the running one. Answers when the "
        "agent has reported, the workspace is mounted and a login has succeeded. Cancelling undoes "
        "the start unless others wait for it; a client that is gone leaves it running to its end.",
        (
            e.KvmUnavailable, e.QemuMissing, e.ToolMissing, e.DiskFull, e.PermissionDenied,
            e.Nested, e.WorkspaceRefused, e.QemuFailed, e.StartTimeout, e.SandboxBusy,
            e.SettingInvalid, e.NameInvalid, e.ImageNotFound, e.DownloadFailed, e.DigestMismatch,
            e.ImageInvalid, e.ImageUnsigned, e.BuildFailed, e.SshUnreachable, e.GuestFailed,
            e.NetworkFailed,
        ), progress=True,
    ),
    Request(
        "sandbox/stop", t.StopParams, t.Sandbox,
        "Write the workspace back, shut the guest down, end its machine. What is only in the guest "
        "is gone. Stopping a stopped sandbox succeeds.",
        (e.SandboxNotFound, e.StopTimeout, e.SandboxBusy), progress=True,
    ),
    Request(
        "sandbox/status", t.Target, t.Sandbox,
        "How a sandbox is. A folder that never had one is a stopped sandbox.",
        (e.SandboxNotFound, e.WorkspaceRefused, e.StateNewer),
    ),
    Request(
        "sandbox/changes", t.Target, w.Changes,
        "What was written to the workspace since the start that programs of this host run, and new "
        "links that lead out of it. Also after the machine's end, for the last life; to be shown "
        "before anybody works in the folder.",
        (e.SandboxNotFound, e.WorkspaceRefused, e.PermissionDenied),
    ),
    Request("sandbox/list", t.ListParams, list[t.Sandbox], "The sandboxes of this user."),
    Request(
        "sandbox/exec", s.ExecParams, s.ExecResult,
        "Run a command in the guest. Output comes as `sandbox/execOutput`, all of it before the "
        "result. An exit status other than 0 is a result, not an error. Cancelling ends the "
        "command with TERM, then KILL.",
        (
            e.SandboxNotFound, e.SandboxNotRunning, e.SettingInvalid, e.SshUnreachable,
            e.ExecFailed,
        ),
    ),
    Request(
        "console/attach", s.ConsoleAttachParams, s.ConsoleAttached,
        "Follow the serial console. Output comes as `console/output`, after this answer, without "
        "loss and without repetition. Any number of clients may attach, and all may write.",
        (e.SandboxNotFound, e.SandboxNotRunning, e.ConsoleGone),
    ),
    Request(
        "console/write", s.ConsoleWriteParams, None, "Type on the console.", (e.ConsoleGone,)
    ),
    Request(
        "console/resize", s.ConsoleResizeParams, s.ConsoleResized,
        "Tell the guest the size of the terminal.", (e.ConsoleGone,),
    ),
    Request(
        "console/detach", s.ConsoleDetachParams, None,
        "End an attachment; `console/closed` comes before the answer.", (e.ConsoleGone,),
    ),
    Request(
        "port/forward", t.PortForwardParams, t.Forward,
        "Let a port of this host's loopback lead to a port of a running guest, until the forward "
        "is closed or the guest ends. One that is there already is the answer as it is. "
        "`Sandbox.forwards` lists them.",
        (
            e.SandboxNotFound, e.WorkspaceRefused, e.SandboxNotRunning, e.SandboxBusy,
            e.SettingInvalid, e.PermissionDenied, e.PortTaken, e.NetworkFailed,
        ),
    ),
    Request(
        "port/close", t.PortCloseParams, t.Forward,
        "End a forward and return it. Its port refuses new connections; those that are open stay.",
        (
            e.SandboxNotFound, e.WorkspaceRefused, e.SandboxNotRunning, e.SandboxBusy,
            e.SettingInvalid, e.ForwardNotFound, e.NetworkFailed,
        ),
    ),
    Request(
        "network/status", t.Target, n.NetworkState,
        "A sandbox's allowlist, and what its proxy is doing where it was started with one.",
        (e.SandboxNotFound, e.WorkspaceRefused, e.StateNewer),
    ),
    Request(
        "network/allow", n.NetworkAllowParams, n.NetworkRules,
        "Add rules to a sandbox's allowlist; they count from the next request on. It need not run.",
        _RULES,
    ),
    Request(
        "network/block", n.NetworkBlockParams, n.NetworkRules,
        "Block hosts, whatever else allows them; open connections to them are cut, no others.",
        _RULES,
    ),
    Request(
        "network/reset", n.NetworkResetParams, n.NetworkRules,
        "Forget what was said of some rules, or make the allowlist what it was at first.",
        _RULES,
    ),
    Request(
        "network/log", n.NetworkLogParams, list[n.NetworkLogEntry],
        "What went through a sandbox's proxy and what was refused, the latest last.",
        (e.SandboxNotFound, e.WorkspaceRefused, e.SettingInvalid),
    ),
    Request(
        "persist/put", t.PersistPutParams, t.PersistPutResult,
        "Copy a file or folder of this host to where a sandbox keeps what outlives a stop: an "
        "editor's server, so that its window downloads nothing. Whole or not at all.",
        (e.SandboxNotFound, e.SettingInvalid, e.PermissionDenied, e.DiskFull), progress=True,
    ),
    Request("host/doctor", None, t.Doctor, "What this host has and lacks."),
    Request("image/list", None, list[i.Image], "The images of this user."),
    Request(
        "image/check", None, list[i.Image],
        "Ask the registries whether their tags mean other images by now, and list the images. "
        "Registries that do not answer are passed over; nothing is downloaded.",
    ),
    Request(
        "image/pull", i.ImagePullParams, i.Image,
        "Get what a reference means in its registry now, and let the name mean that here. What is "
        "here already is not fetched again. Cancelling keeps what has come for the next pull.",
        (
            e.ToolMissing, e.DiskFull, e.PermissionDenied, e.SettingInvalid, e.ImageNotFound,
            e.DownloadFailed, e.DigestMismatch, e.ImageInvalid, e.ImageUnsigned,
        ), progress=True,
    ),
    Request(
        "image/push", i.ImagePushParams, i.ImagePublished,
        "Put an image into a registry, with kernel and initrd as layers of their own, and give it "
        "that name here too.",
        (
            e.ToolMissing, e.DiskFull, e.PermissionDenied, e.ImageNotFound, e.DownloadFailed,
            e.ImageInvalid,
        ), progress=True,
    ),
    Request(
        "image/import", i.ImageImportParams, i.Image,
        "Take an image from a file or folder of this machine.",
        (
            e.ToolMissing, e.DiskFull, e.PermissionDenied, e.ImageNotFound, e.DigestMismatch,
            e.ImageInvalid,
        ), progress=True,
    ),
    Request(
        "image/export", i.ImageExportParams, i.ImagePublished,
        "Write an image as an OCI layout, which appears whole or not at all.",
        (e.ToolMissing, e.DiskFull, e.PermissionDenied, e.ImageNotFound, e.ImageInvalid),
        progress=True,
    ),
    Request(
        "image/prune", i.ImagePruneParams, i.ImagePruned,
        "Remove images without a name that nothing needs, and parts of downloads that nobody has "
        "gone on with for a week.",
    ),
    Request(
        "image/build", i.ImageBuildParams, i.Image,
        "Build a Debian 13 image from this host's mirror. Cancelling leaves nothing behind.",
        (e.ToolMissing, e.DiskFull, e.ImageNotFound, e.BuildFailed), progress=True,
    ),
    Request(
        "image/remove", i.ImageRemoveParams, None, "Remove an image that no sandbox runs on.",
        (e.ImageNotFound, e.ImageInUse),
    ),
    Request(
        "template/list", None, list[m.Template],
        "The saved machines that sandboxes of this user start from, the last used one first.",
    ),
    Request(
        "template/build", m.TemplateBuildParams, m.Template,
        "Make the template that starts with these settings would make, or find it. Cancelling "
        "leaves nothing behind.",
        (
            e.KvmUnavailable, e.QemuMissing, e.ToolMissing, e.DiskFull, e.PermissionDenied,
            e.SettingInvalid, e.ImageNotFound, e.DownloadFailed, e.DigestMismatch, e.ImageInvalid,
            e.ImageUnsigned, e.BuildFailed, e.TemplateInvalid,
        ), progress=True,
    ),
    Request(
        "template/remove", m.TemplateRemoveParams, None,
        "Remove a template; sandboxes that run keep what they need of it.",
        (e.TemplateNotFound,),
    ),
)  # fmt: skip

NOTIFICATIONS = (
    Notification(
        "sandbox/didChange", t.Sandbox,
        "A sandbox changed, by whomever: the whole value, `revision` grows within one life.",
    ),
    Notification(
        "network/didBlock", n.Blocked,
        "The proxy of a sandbox refused a request. The same one comes again after a minute at the "
        "earliest.",
    ),
    Notification("sandbox/execOutput", s.ExecOutput, "Output of a command."),
    Notification("sandbox/execInput", s.ExecInput, "Input for a command.", to_server=True),
    Notification("sandbox/execSignal", s.ExecSignal, "A signal for a command.", to_server=True),
    Notification(
        "sandbox/execResize", s.ExecResize, "A new size of a command's terminal.", to_server=True
    ),
    Notification("console/output", s.ConsoleOutput, "Output of an attached console."),
    Notification("console/closed", s.ConsoleClosed, "An attachment ended."),
)  # fmt: skip
