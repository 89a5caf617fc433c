"""What QEMU sees of the host's files, and under which fixed paths. Pure but for `descriptors`.

    /usr /lib ... /etc/...   read-only, what its binary needs
    /dev /proc /tmp          fresh; /dev/kvm where the guest runs on KVM
    /vm                      the machine's own folder, writable; also the working directory
    /workspace               the shared folder, writable
    /persist                 what outlives a stop, writable
    /image/...               disk, kernel and initrd, read-only

A path of the host goes to bubblewrap as an argument of its own and never reaches QEMU's option
parser, so commas, newlines and bytes that are not UTF-8 need no quoting.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath

from attrs import frozen

from sandbox_rpc.protocol.errors import WorkspaceRefused

VM = "/vm"
WORKSPACE = "/workspace"
PERSIST = "/persist"
IMAGE = "/image"

MAX_PATH = 4080
"""Bytes of a shared path: bubblewrap puts a few in front of it, and the kernel takes 4095."""


@frozen
class Mount:
    """One entry of the view, in bubblewrap's words."""

    option: str
    """`ro-bind`, `ro-bind-try`, `bind`, `dev-bind`, `symlink`."""
    source: str
    """Path on the host; for a symlink its target."""
    target: str
    """Path as QEMU sees it."""


CONFIGURATION = tuple(
    Mount("ro-bind-try", path, path)
    for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/qemu")
)
"""Read by the loader and by QEMU itself, as far as it exists."""

RESOLVER = tuple(
    Mount("ro-bind-try", path, path)
    for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf")
)
"""Read by QEMU's own network stack; bubblewrap follows a symlink such as systemd-resolved's."""


@frozen
class View:
    """The files of one virtual machine."""

    vm: str
    """`Room.qemu` on the host."""
    workspace: str
    """Real path of the shared folder on the host."""
    files: tuple[Mount, ...] = ()
    """Image files: `Mount("ro-bind", HOST, "/image/disk.qcow2")`; other folders it shares."""
    masks: tuple[str, ...] = ()
    """Folders relative to the workspace that QEMU must not see, from `masked`; they must exist."""
    protected: tuple[str, ...] = ()
    """Files and folders relative to the workspace that it can only read; they exist, no links."""
    kvm: bool = False
    """Whether the guest runs on KVM, which takes /dev/kvm."""
    network_namespace: bool = False
    """Whether QEMU gets a network namespace with nothing in it; then it has no resolver either."""


def masked(workspace: str, hidden: Iterable[str]) -> tuple[str, ...]:
    """Those of the `hidden` host folders that lie below the workspace, relative to it.

    All paths are real ones, without symlinks.

    Raises:
        WorkspaceRefused: the workspace is one of them or lies in one, so no mask can help.
    """
    root = PurePosixPath(workspace)
    found: list[PurePosixPath] = []
    for folder in sorted(map(PurePosixPath, hidden)):
        if root == folder or folder in root.parents:
            raise WorkspaceRefused(
                f"{workspace} lies in this program's own state, {folder}.",
                hint="Open another folder; --force does not help here.",
            )
        if root in folder.parents:
            below = folder.relative_to(root)
            if not any(one in below.parents or one == below for one in found):
                found.append(below)
    return tuple(map(str, found))


def protectable(workspace: str, paths: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Those of the paths that can be held read-only, and why some others cannot, as sentences.

    What is not there cannot be, and needs no sentence. A link is refused: it would show QEMU, and
    so the guest, whatever it leads to.
    """
    found: list[str] = []
    problems = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        place = os.path.join(workspace, path)
        try:
            status = os.lstat(place)
        except OSError:
            continue
        if os.path.realpath(place) != place:
            problems.append(f"{path} cannot be protected: it is a link, or behind one.")
        elif not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            problems.append(f"{path} is not protected well: the file has another name as well.")
            found.append(path)
        elif not any(path.startswith(f"{one}/") for one in found):
            found.append(path)
    return tuple(found), problems


def mounts(view: View, system: Iterable[Mount], *, own_pids: bool, inner_map: bool) -> list[str]:
    """Bubblewrap's options for the view.

    `system` is what the binaries need (`probe.needs`), `own_pids` says that there is a pid
    namespace for a new /proc, `inner_map` that a user namespace is still to be made inside, which
    takes a writable /proc/self.
    """
    entries = [*system, *CONFIGURATION, *(() if view.network_namespace else RESOLVER)]
    entries += view.files
    options = [part for folder in _parents(entries) for part in ("--dir", folder)]
    for entry in entries:
        options += [f"--{entry.option}", entry.source, entry.target]
    if own_pids:
        options += ["--proc", "/proc"]
    else:
        options += ["--bind" if inner_map else "--ro-bind", "/proc", "/proc"]
    options += ["--dev", "/dev"]
    if view.kvm:
        options += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    # Made by root for a QEMU that is not: the usual mode of a tmpfs here, 0755, would shut it out.
    options += ["--perms", "1777", "--tmpfs", "/tmp"]
    options += ["--bind", view.vm, VM, "--bind", _shareable(view.workspace), WORKSPACE]
    options += _masking(view)
    return [*options, "--remount-ro", "/", "--chdir", VM]


def _parents(entries: Iterable[Mount]) -> list[str]:
    # Made by themselves: bubblewrap makes the parents of a single file 0700.
    targets = [PurePosixPath(entry.target) for entry in entries]
    found = {str(parent) for target in targets for parent in target.parents}
    found.discard("/")
    provided = {entry.target for entry in entries}
    return sorted(
        folder
        for folder in found
        if folder not in provided and not any(_is_below(folder, one) for one in provided)
    )


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(folder) in PurePosixPath(path).parents


def _masking(view: View) -> list[str]:
    """An empty read-only folder over each mask, each protected path read-only over itself, and the
    way there held in place.

    A folder that is mounted on cannot be renamed: without that the guest could move the parent of a
    masked folder aside and put one of its own making where this program looks for its state.
    """
    way = sorted(
        {
            str(parent)
            for mask in (*view.masks, *view.protected)
            for parent in PurePosixPath(mask).parents
            if str(parent) != "."
        }
    )
    options: list[str] = []
    for folder in way:
        options += ["--bind", f"{view.workspace}/{folder}", f"{WORKSPACE}/{folder}"]
    for path in view.protected:
        options += ["--ro-bind", f"{view.workspace}/{path}", f"{WORKSPACE}/{path}"]
    for mask in view.masks:
        options += ["--tmpfs", f"{WORKSPACE}/{mask}", "--remount-ro", f"{WORKSPACE}/{mask}"]
    return options


def _shareable(path: str) -> str:
    if len(os.fsencode(path)) > MAX_PATH:
        raise WorkspaceRefused(
            f"The folder's path is too long: {len(os.fsencode(path))} of {MAX_PATH} bytes.",
            hint="Open a folder nearer to the root.",
        )
    return path


def inside(view: View) -> dict[str, str]:
    """Host path → path as QEMU sees it, for the workspace and the files."""
    return {view.workspace: WORKSPACE, **{entry.source: entry.target for entry in view.files}}


def inherited(descriptors: Mapping[str, int]) -> dict[str, str]:
    """The same where QEMU has no view of its own and is handed open descriptors instead.

    By descriptor, since QEMU's option parser would take a comma in a name for its own, and since
    the owner of a folder that root opens cannot pass through root's cache to the image.
    """
    return {path: f"/proc/self/fd/{fd}" for path, fd in descriptors.items()}


@contextmanager
def descriptors(view: View) -> Iterator[dict[str, int]]:
    """Open the workspace and the files by path only, for `inherited`; host path → descriptor.

    They carry no right to read or write: QEMU opens them anew with its own rights.

    Raises:
        OSError: one is not there.
    """
    with ExitStack() as stack:
        opened: dict[str, int] = {}
        for path in inside(view):
            opened[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
            stack.callback(os.close, opened[path])
        yield opened
