"""The generated TypeScript under `tsc --strict`, with a client written against it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from release.npm import EXTENSION, environment, packages

CLIENT = """
import type { MessageConnection } from "vscode-jsonrpc";
import * as protocol from "./protocol";

export async function main(connection: MessageConnection): Promise<number> {
  let seen = 0;
  const initialized = await connection.sendRequest(protocol.InitializeRequest, {
    capabilities: { experimental: { sandbox: { protocolVersion: protocol.PROTOCOL_VERSION } } },
  });
  const spoken: string = initialized.capabilities.experimental.sandbox.protocolVersion;
  connection.onNotification(protocol.ConsoleOutputNotification, (output) => {
    seen += output.data.length;
  });
  const sandbox = await connection.sendRequest(protocol.SandboxStartRequest, { workspace: "/a" });
  const images = await connection.sendRequest(protocol.ImageListRequest);
  await connection.sendNotification(protocol.ExitNotification);
  const code: protocol.SandboxErrorCode = protocol.SandboxErrorCode.QemuMissing;
  return (sandbox.ssh?.port ?? code) + images.length + spoken.length + seen;
}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the extension's folder with its packages."""
    folder = tmp_path_factory.mktemp("tsc") / "extension"
    shutil.copytree(EXTENSION, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(packages())
    return folder


def tsc(project: Path) -> subprocess.CompletedProcess[str]:
    """Run the compiler for its findings only."""
    return subprocess.run(
        [str(project / "node_modules/.bin/tsc"), "--strict", "--noEmit", "-p", "."],
        cwd=project, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_generated_file_compiles(project: Path) -> None:
    done = tsc(project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_is_held_to_the_protocol(project: Path) -> None:
    client = project / "src/client-under-test.ts"
    try:
        client.write_text(CLIENT)
        done = tsc(project)
        assert done.returncode == 0, done.stdout + done.stderr
        for right, wrong, said in (
            ('{ workspace: "/a" }', "{}", "client-under-test.ts(14,"),
            ("sandbox.ssh?.port", "sandbox.ssh.port", "possibly 'undefined'"),
            ("images.length", "images.size", "size"),
        ):
            assert right in CLIENT
            client.write_text(CLIENT.replace(right, wrong))
            done = tsc(project)
            assert done.returncode != 0
            assert said in done.stdout
    finally:
        client.unlink()
