/**
 * The bundled server, copied to where it stays.
 *
 * An editor removes the folder of an old version of an extension while supervisors still run from it
 * and SSH stubs still name it, so the Python packages are copied to the extension's own storage, and
 * stubs name a launcher there that always starts the newest.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import * as path from "node:path";

/** Copies that are kept beside the present one: supervisors may still run from them. */
const KEPT = 3;

export interface Bundle {
  /** Folder to put on PYTHONPATH. */
  readonly libs: string;
  /** The `sandbox` command for stubs. */
  readonly launcher: string;
}

/** Put the packages in `source` into `storage`; undefined where the extension carries none. */
export async function install(source: string, storage: string): Promise<Bundle | undefined> {
  let mark: Buffer;
  try {
    mark = await fs.readFile(path.join(source, "BUNDLE"));
  } catch {
    return undefined;
  }
  const all = path.join(storage, "server");
  const name = createHash("sha256").update(mark).digest("hex").slice(0, 16);
  const libs = path.join(all, name);
  try {
    await fs.access(path.join(libs, "BUNDLE"));
  } catch {
    await fs.mkdir(all, { recursive: true });
    const fresh = await fs.mkdtemp(path.join(all, ".new-"));
    await fs.cp(source, fresh, { recursive: true });
    try {
      await fs.rename(fresh, libs);
    } catch (error) {
      // Another window was faster.
      await fs.rm(fresh, { recursive: true, force: true });
      await fs.access(path.join(libs, "BUNDLE")).catch(() => Promise.reject(error));
    }
    await prune(all, name);
  }
  return { libs, launcher: path.join(storage, "sandbox") };
}

/** Write the launcher, for the interpreter that was found. */
export async function writeLauncher(bundle: Bundle, python: string): Promise<void> {
  const text = [
    "#!/bin/sh",
    "# Written by the KVM Sandbox extension: the `sandbox` command of its bundled server.",
    `PYTHONPATH=${quoted(bundle.libs)} SANDBOX_PROGRAM=${quoted(bundle.launcher)} \\`,
    `    exec ${quoted(python)} -P -m sandbox_rpc.cli.main "$@"`,
    "",
  ].join("\n");
  const now = await fs.readFile(bundle.launcher, "utf8").catch(() => undefined);
  if (now === text) return;
  const fresh = `${bundle.launcher}.${process.pid}`;
  await fs.writeFile(fresh, text, { mode: 0o755 });
  await fs.rename(fresh, bundle.launcher);
}

async function prune(all: string, present: string): Promise<void> {
  const found: { name: string; time: number }[] = [];
  for (const name of await fs.readdir(all)) {
    if (name === present || name.startsWith(".")) continue;
    const { mtimeMs } = await fs.stat(path.join(all, name));
    found.push({ name, time: mtimeMs });
  }
  found.sort((one, other) => other.time - one.time);
  for (const { name } of found.slice(KEPT)) {
    await fs.rm(path.join(all, name), { recursive: true, force: true });
  }
}

/** A word for a shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
