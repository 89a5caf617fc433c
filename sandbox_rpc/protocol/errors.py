"""Every error a user or a client can receive.

    SandboxError
    ├─ HostError      1000  KvmUnavailable QemuMissing ToolMissing DiskFull PermissionDenied
    │                       StateNewer ProtocolMismatch Nested
    ├─ VmError        1100  SandboxNotFound WorkspaceRefused SandboxNotRunning QemuFailed
    │                       StartTimeout StopTimeout SandboxBusy SettingInvalid SettingUntrusted
    │                       NameInvalid
    ├─ ImageError     1200  ImageNotFound DownloadFailed DigestMismatch ImageInvalid ImageInUse
    │                       BuildFailed TemplateInvalid TemplateNotFound ImageUnsigned
    ├─ GuestError     1300  SshUnreachable ExecFailed GuestFailed
    ├─ ConsoleError   1400  ConsoleGone
    └─ NetworkError   1500  PortTaken ForwardNotFound RuleInvalid NetworkFailed

`code` goes over the wire and is never reused; `kind` is the stable name for programs; `message`
says what happened, `hint` what to do about it, `details` holds the fields of that error. The
command line's exit status is the block (`1101` exits with 11), so all learn one table.
"""

from __future__ import annotations

from typing import Any, ClassVar

INTERNAL = 70
"""Exit status after a fault of our own: EX_SOFTWARE of sysexits.h."""


class SandboxError(Exception):
    """Something the user can understand and usually act on."""

    code: int = -32000
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.details = details

    @property
    def kind(self) -> str:
        """The class name in camelCase: `imageNotFound`."""
        return kind_of(type(self))

    @property
    def exit_status(self) -> int:
        """What the command line exits with: the block of the code, 10 to 15; else 70."""
        return self.code // 100 if self.code > 0 else INTERNAL

    def to_wire(self) -> dict[str, Any]:
        """The error object of a JSON-RPC response."""
        data: dict[str, Any] = {"kind": self.kind, **self.details}
        if self.hint:
            data["hint"] = self.hint
        return {"code": self.code, "message": self.message, "data": data}


class HostError(SandboxError):
    """This machine lacks something."""


class KvmUnavailable(HostError):
    """KVM was asked for and cannot run a guest here."""

    code = 1001
    default_hint = "Run `sandbox doctor`, or set accelerator = auto to fall back on emulation."


class QemuMissing(HostError):
    """No usable QEMU was found."""

    code = 1002
    default_hint = "Install QEMU 7.2 or newer (Debian: apt-get install qemu-system-x86)."


class ToolMissing(HostError):
    """A program that is needed is not installed."""

    code = 1003


class DiskFull(HostError):
    """A file system has no room left."""

    code = 1004
    default_hint = "Free some space, or move the cache with SANDBOX_CACHE_BASE."


class PermissionDenied(HostError):
    """The operating system refused access."""

    code = 1005


class StateNewer(HostError):
    """A state file was written by a newer version."""

    code = 1006
    default_hint = "Upgrade this installation of sandbox-rpc."


class ProtocolMismatch(HostError):
    """The peer speaks another major version of the protocol."""

    code = 1007


class Nested(HostError):
    """Refused to start a sandbox inside a sandbox."""

    code = 1008
    default_hint = "Pass --force if a virtual machine inside this one is really meant."


class VmError(SandboxError):
    """A sandbox cannot do what was asked."""


class SandboxNotFound(VmError):
    """No sandbox has this name."""

    code = 1101
    default_hint = "`sandbox list --all` shows the known ones."


class WorkspaceRefused(VmError):
    """The folder cannot be shared, or should not be."""

    code = 1102


class SandboxNotRunning(VmError):
    """The sandbox is not running."""

    code = 1103
    default_hint = "Start it with `sandbox start`."


class QemuFailed(VmError):
    """QEMU did not start, or ended unexpectedly."""

    code = 1104


class StartTimeout(VmError):
    """The guest did not come up in time."""

    code = 1105


class StopTimeout(VmError):
    """The virtual machine did not end in time."""

    code = 1106


class SandboxBusy(VmError):
    """Another operation on this sandbox is under way."""

    code = 1107


class SettingInvalid(VmError):
    """A setting has a value it cannot have."""

    code = 1108


class SettingUntrusted(VmError):
    """The folder's file asks for more than a folder may."""

    code = 1109
    default_hint = "Read sandbox.toml; `sandbox trust` accepts it as it is now."


class NameInvalid(VmError):
    """Not a name a sandbox can have."""

    code = 1110
    default_hint = "Use up to 64 letters, digits, dots, dashes and underscores."


class ImageError(SandboxError):
    """An image cannot be used."""


class ImageNotFound(ImageError):
    """No image has this reference."""

    code = 1201
    default_hint = "`sandbox image list` shows what is there, `sandbox image build` makes one."


class DownloadFailed(ImageError):
    """A download did not succeed."""

    code = 1202


class DigestMismatch(ImageError):
    """Content does not have the digest it should have."""

    code = 1203


class ImageInvalid(ImageError):
    """The image is damaged or not an image."""

    code = 1204
    default_hint = "Remove it with `sandbox image remove` and build it again."


class ImageInUse(ImageError):
    """A running sandbox needs the image."""

    code = 1205


class BuildFailed(ImageError):
    """The image could not be built."""

    code = 1206


class TemplateInvalid(ImageError):
    """The template cannot be used."""

    code = 1207
    default_hint = "It is made anew by the next start, or by `sandbox template build`."


class TemplateNotFound(ImageError):
    """There is no such template."""

    code = 1208
    default_hint = "`sandbox template list` shows those there are."


class ImageUnsigned(ImageError):
    """The key that the settings name has not signed the image."""

    code = 1209
    default_hint = (
        "It is not used. Its publisher signs with `cosign sign --key`, from cosign 3 on with "
        "--new-bundle-format=false; `pull.key` names the key that has to have signed."
    )


class GuestError(SandboxError):
    """The guest does not do what was asked."""


class SshUnreachable(GuestError):
    """No login with the pinned key succeeded."""

    code = 1301


class ExecFailed(GuestError):
    """The command could not be run in the guest."""

    code = 1302


class GuestFailed(GuestError):
    """The agent in the guest reported an error."""

    code = 1303


class ConsoleError(SandboxError):
    """The serial console cannot be used."""


class ConsoleGone(ConsoleError):
    """The console has ended."""

    code = 1401


class NetworkError(SandboxError):
    """The sandbox's network cannot do what was asked."""


class PortTaken(NetworkError):
    """Another program listens on the port."""

    code = 1501
    default_hint = "Ask for another port, or leave the choice to us."


class ForwardNotFound(NetworkError):
    """No such port forward."""

    code = 1502
    default_hint = "`sandbox port list` shows those there are."


class RuleInvalid(NetworkError):
    """Not a rule an allowlist can have."""

    code = 1503


class NetworkFailed(NetworkError):
    """The network process failed."""

    code = 1504


def kind_of(error: type[SandboxError]) -> str:
    """The stable name of an error class: its name in camelCase."""
    name = error.__name__
    return name[0].lower() + name[1:]


def _tree(root: type[SandboxError]) -> list[type[SandboxError]]:
    return [leaf for child in root.__subclasses__() for leaf in (child, *_tree(child))]


ERRORS: dict[int, type[SandboxError]] = {
    error.code: error for error in _tree(SandboxError) if error.code > 0
}
"""All errors by code, for the wire and for the documents."""


def from_wire(error: dict[str, Any]) -> SandboxError:
    """The exception that `SandboxError.to_wire` described; unknown codes keep message and hint."""
    data = dict(error.get("data") or {})
    data.pop("kind", None)
    hint = data.pop("hint", None)
    kind = ERRORS.get(error.get("code", 0), SandboxError)
    found = kind(str(error.get("message", "unknown error")), hint=hint, **data)
    if kind is SandboxError:
        found.code = error.get("code", found.code)
    return found
