"""A host, a guest and an internet, in three network namespaces, with real Linux TCP on all sides.

    guest ── tap ── QEMU without a machine ── unix socket ── netd ── host ── veth ── internet
                                                                        └── veth ── LAN

QEMU carries frames only, with the code that carries those of a machine. Nothing here leaves the
namespaces: the addresses of the "internet" are served by the third one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox_rpc.network import control
from sandbox_rpc.network.launch import Running, Wish, connect_to_qemu, launch
from tests.unit.network.nodes import Node

LIMIT_S = 60
GUEST = "10.0.2.15"
OWN_PUBLIC = "9.9.9.2"
OWN_LAN = "192.168.77.2"
OWN_LATER = "9.9.7.7"
INTERNET = "9.9.9.9"
INTERNET_6 = "2620:fe::9"
RESOLVER = "192.168.77.1"
NEIGHBOUR = "192.168.77.7"
SHADOWED = "10.0.2.77"
"""A LAN of the host that uses the guest's own network."""
BEYOND = (
    INTERNET, NEIGHBOUR, RESOLVER, SHADOWED, "169.254.169.254", "168.63.129.16", "100.64.3.4",
    "172.16.5.5", "10.9.9.9", "203.0.113.10", "198.18.0.7", "192.0.0.192",
)  # fmt: skip
"""What the third namespace answers for."""
QEMU = f"qemu-system-{platform.machine()}"


class Echo:
    """Servers that greet with a word and send back what they get; TCP and UDP."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[socket.socket, str]] = {}
        self._clients: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._alive = True
        self.datagrams: list[tuple[str, bytes]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def serve(self, node: Node, address: str, port: int, word: str, *, udp: bool = False) -> int:
        """Serve at an address of a node; the port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = node.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        one.setblocking(False)
        if not udp:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        if not udp:
            one.listen(128)
        with self._lock:
            self._sockets[one.fileno()] = (one, word)
        self._poll.register(one.fileno(), select.EPOLLIN)
        return int(one.getsockname()[1])

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._clients)

    def stop(self) -> None:
        """End the thread."""
        self._alive = False

    def _serve(self) -> None:
        while self._alive:
            for fd, _ in self._poll.poll(0.2):
                with contextlib.suppress(OSError, KeyError):
                    self._handle(fd)

    def _handle(self, fd: int) -> None:
        with self._lock:
            found = self._sockets.get(fd)
        if found is not None:
            one, word = found
            if one.type == socket.SOCK_DGRAM:
                data, peer = one.recvfrom(65536)
                self.datagrams.append((word, data))
                one.sendto(word.encode() + b" " + data, peer)
                return
            client, _ = one.accept()
            client.sendall(word.encode() + b"\n")
            self._clients[client.fileno()] = client
            self._poll.register(client.fileno(), select.EPOLLIN)
            return
        client = self._clients[fd]
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if data:
            client.settimeout(LIMIT_S)
            client.sendall(data)
        else:
            self._poll.unregister(fd)
            del self._clients[fd]
            client.close()


class World:
    """The three namespaces and their canaries; shared by all tests of a run.

    With `mounts` the host has a mount namespace too, for tests that run whole programs in it.
    """

    def __init__(self, *, mounts: bool = False) -> None:
        self.host = Node.first(mounts=mounts)
        self.guest = self.host.another()
        self.internet = self.host.another()
        for name, ours, theirs in (("wan", OWN_PUBLIC, "9.9.9.1"), ("lan", OWN_LAN, RESOLVER)):
            self.host.ip(
                f"link add {name} type veth peer name {name}peer netns {self.internet.pid}"
            )
            self.host.ip(f"addr add {ours}/24 dev {name}")
            self.host.ip(f"link set {name} up")
            self.internet.ip(f"addr add {theirs}/24 dev {name}peer")
            self.internet.ip(f"link set {name}peer up")
        self.host.ip("addr add 2620:fe::2/64 dev wan nodad")
        self.internet.ip(f"addr add {INTERNET_6}/64 dev wanpeer nodad")
        for address in BEYOND:
            if address not in (INTERNET, RESOLVER):
                self.internet.ip(f"addr add {address}/32 dev lo")
        self.internet.ip(f"addr add {INTERNET}/32 dev lo")
        self.host.ip("route add default via 9.9.9.1")
        for address in (SHADOWED, "169.254.169.254"):
            self.host.ip(f"route add {address}/32 via 9.9.9.1")
        self.echo = Echo()
        self.loopback_port = self.echo.serve(self.host, "127.0.0.1", 0, "loopback")
        for address, word in (
            ("::1", "loopback6"), ("0.0.0.0", "any"), (OWN_LAN, "own-lan"),
            (OWN_PUBLIC, "own-public"),
        ):  # fmt: skip
            port = {"loopback6": 7001, "any": 7002, "own-lan": 7003, "own-public": 7004}[word]
            self.echo.serve(self.host, address, port, word)
        self.echo.serve(self.host, "0.0.0.0", 7002, "any-udp", udp=True)
        self.echo.serve(self.internet, "0.0.0.0", 80, "beyond")
        for address in (INTERNET, NEIGHBOUR):
            self.echo.serve(self.internet, address, 80, "beyond-udp", udp=True)
        self.echo.serve(self.internet, INTERNET_6, 80, "beyond6")
        self.echo.serve(self.internet, RESOLVER, 53, "resolver", udp=True)
        self.echo.serve(self.internet, RESOLVER, 53, "resolver")
        self.echo.serve(self.internet, INTERNET, 53, "public-dns", udp=True)
        self.echo.serve(self.guest, "0.0.0.0", 22, "ssh")
        self.echo.serve(self.guest, "0.0.0.0", 3000, "web")

    def stop(self) -> None:
        """End all of it."""
        self.echo.stop()
        for node in (self.guest, self.internet, self.host):
            node.stop()


class Lab:
    """One guest with its cable: QEMU, and the network processes that tests start."""

    def __init__(self, world: World, folder: Path, mtu: int = 1500) -> None:
        self.world = world
        self.folder = folder
        self.running: Running | None = None
        self.qemu_socket = folder / "net.sock"
        self.control_socket = folder / "netd.sock"
        self.log = folder / "netd.log"
        tap = world.guest.tap("eth0")
        world.guest.ip(f"link set eth0 mtu {mtu}")
        self._is_up = False
        # As in the product: QEMU inherits the socket, listening already, so nobody comes too early.
        ear = socket.socket(socket.AF_UNIX)
        ear.bind(str(self.qemu_socket))
        ear.listen(1)
        self.qemu = subprocess.Popen(
            [
                QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-no-user-config",
                "-netdev", f"tap,id=tap,fd={tap}",
                "-netdev", f"stream,id=peer,server=on,addr.type=fd,addr.str={ear.fileno()}",
                "-netdev", "hubport,id=a,hubid=0,netdev=tap",
                "-netdev", "hubport,id=b,hubid=0,netdev=peer",
            ],
            cwd=folder, stdin=subprocess.DEVNULL, pass_fds=[tap, ear.fileno()],
        )  # fmt: skip
        os.close(tap)
        ear.close()

    def netd(self, wish: Wish, listeners: list[tuple[socket.socket, int]] | None = None) -> Running:
        """Start a network process in the host's namespace."""
        self.running = launch_inside(
            self.world.host, wish, self.qemu_socket, self.control_socket, listeners or [], self.log
        )
        # What this machine's own resolver is must not matter here.
        self.ask("resolver", text=f"nameserver {RESOLVER}\n")
        if not self._is_up:
            self.go_up()
        return self.running

    def go_up(self) -> None:
        """Put the cable in."""
        # QEMU 7.2 dies of a frame that comes before its listening socket is in place, which no
        # machine is quick enough for; so the cable is put in when it has taken a connection.
        wait_for(lambda: self.queued() == 0, "QEMU to accept")
        guest = self.world.guest
        guest.ip("link set eth0 up")
        guest.ip(f"addr add {GUEST}/24 dev eth0")
        guest.ip("route add default via 10.0.2.2")
        self._is_up = True

    def queued(self) -> int:
        """How many connections wait for QEMU to take them."""
        listing = subprocess.run(
            ["ss", "-xlH", "src", str(self.qemu_socket)],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        return int(listing[2]) if listing else -1

    def ask(self, method: str, descriptors: list[int] | None = None, **params: object) -> dict:  # type: ignore[type-arg]
        """Ask the network process."""
        assert self.running is not None
        result: dict = control.call(self.running.control, method, descriptors, **params)[0]  # type: ignore[type-arg]
        return result

    def listener(self, port: int = 0) -> socket.socket:
        """A listening socket on the host's loopback."""
        one = self.world.host.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        one.listen(64)
        return one

    def knock(self, address: str, port: int, node: Node | None = None, limit_s: float = 20) -> str:
        """What the guest, or another node, meets there; see the function."""
        return knock(node or self.world.guest, address, port, limit_s)

    def send(self, address: str, port: int, node: Node | None = None, limit_s: float = 20) -> str:
        """The same with a datagram."""
        return send(node or self.world.guest, address, port, limit_s)

    def close(self) -> None:
        """End QEMU, with which the network process ends."""
        self.qemu.kill()
        self.qemu.wait(LIMIT_S)
        if self.running is not None:
            pid = self.running.pid
            wait_for(lambda: not alive(pid), "the network process's end")
            self.running.control.close()


def knock(node: Node, address: str, port: int, limit_s: float = 20) -> str:
    """Connect from a node: the word that greets, `refused`, `unreachable ERRNO` or `silence`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.socket(family) as one:
        one.settimeout(limit_s)
        try:
            one.connect((address, port))
            return one.recv(100).decode().strip() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError as error:
            return f"unreachable {error.errno}"


def send(node: Node, address: str, port: int, limit_s: float = 20) -> str:
    """The same with a datagram."""
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(limit_s)
        try:
            one.connect((address, port))
            one.send(b"hello")
            return one.recv(100).decode().strip()
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError as error:
            return f"unreachable {error.errno}"


def launch_inside(
    node: Node,
    wish: Wish,
    qemu: Path,
    control_socket: Path,
    listeners: list[tuple[socket.socket, int]],
    log: Path,
) -> Running:
    """`launch` as seen from a node: in a thread that enters the node's namespaces.

    Done by nsenter in front of the command line, since a process with threads cannot enter a user
    namespace itself.
    """
    original = subprocess.Popen

    class Inside(original):  # type: ignore[misc, valid-type]
        def __init__(self, argv: list[str], **options: object) -> None:
            nsenter = shutil.which("nsenter")
            assert nsenter
            words = ["--target", str(node.pid), "--user", "--preserve-credentials", "--net", "--"]
            super().__init__([nsenter, *words, *argv], **options)

    subprocess.Popen = Inside  # type: ignore[misc, assignment]
    try:
        with connect_to_qemu(qemu) as peer:
            return launch(
                wish, peer=peer, control_socket=control_socket, listeners=listeners, log=log
            )
    finally:
        subprocess.Popen = original  # type: ignore[misc]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def wait_for(condition: object, what: str) -> None:
    """Wait until it holds, with a generous limit."""
    assert callable(condition)
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, f"still waiting for {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def lab(world: World, folder: Path, mtu: int = 1500) -> Iterator[Lab]:
    """A lab, cleared away afterwards."""
    made = Lab(world, folder, mtu)
    try:
        yield made
    finally:
        made.close()
        wait_for(lambda: "eth0" not in world.guest.ip("-br link"), "the tap's end")
