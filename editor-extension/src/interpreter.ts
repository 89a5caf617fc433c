/** Which program serves: the user's own, the bundled one on a Python of this host, or one on PATH. */
import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";

import type { Variables } from "./place";

/** What the bundled server needs. */
export const MINIMUM = [3, 11] as const;
const NAMES = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"];
const PROBE = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable, sep='\\n')";
const PROBE_LIMIT_MS = 10_000;

/** How to start the server. */
export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Variables;
  /** For the log: why this one. */
  readonly origin: string;
  /** The interpreter, where it is the bundled server's. */
  readonly python?: string;
}

/** What the user has chosen, and what there is. */
export interface Choice {
  /** `kvmSandbox.server.command`: a program with arguments that speaks the protocol. */
  readonly command: readonly string[];
  /** `kvmSandbox.server.interpreter`. */
  readonly interpreter: string;
  /** Folder with the bundled Python packages; undefined where there are none. */
  readonly bundled: string | undefined;
  /** Interpreter of the private virtual environment, where it was made. */
  readonly environment: string | undefined;
  /** The launcher that stubs in the SSH configuration start. */
  readonly launcher: string;
}

/** No program was found; `tried` says what was looked at. */
export class NoServer extends Error {
  constructor(
    message: string,
    readonly tried: readonly string[],
  ) {
    super(message);
  }
}

export type Probe = (python: string) => Promise<string | undefined>;

/** Ask an interpreter for its version; its real path where it is new enough. */
export async function probe(python: string): Promise<string | undefined> {
  const text = await new Promise<string>((resolve) => {
    // -I: neither the folder it is called in nor the user's variables decide what is imported.
    execFile(python, ["-I", "-c", PROBE], { timeout: PROBE_LIMIT_MS, cwd: "/" }, (error, out) =>
      resolve(error ? "" : out),
    );
  });
  const [version, executable] = text.split("\n");
  return version && executable && newEnough(version) ? executable : undefined;
}

export function newEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1]);
}

/** The paths of a program on PATH. */
export function onPath(name: string, env: Variables): string | undefined {
  for (const folder of (env.PATH ?? "").split(path.delimiter)) {
    // A relative entry would be looked up in whatever folder is open.
    if (!path.isAbsolute(folder)) continue;
    const file = path.join(folder, name);
    try {
      fs.accessSync(file, fs.constants.X_OK);
      if (fs.statSync(file).isFile()) return file;
    } catch {
      // The next one.
    }
  }
  return undefined;
}

/** Decide. Throws `NoServer` where nothing can serve. */
export async function find(choice: Choice, env: Variables, ask: Probe = probe): Promise<Program> {
  const [command, ...args] = choice.command;
  if (command) {
    return { command: expanded(command), args, env: {}, origin: "kvmSandbox.server.command" };
  }
  const tried: string[] = [];
  if (choice.bundled !== undefined) {
    const python =
      (await environment(choice, ask, tried)) ??
      (await findPython(choice.interpreter, env, tried, ask));
    if (python !== undefined) {
      return {
        command: python.path,
        args: ["-P", "-m", "sandbox_rpc", "--stdio"],
        env: { PYTHONPATH: choice.bundled, SANDBOX_PROGRAM: choice.launcher },
        origin: `bundled, with ${python.why}`,
        python: python.path,
      };
    }
  }
  const installed = onPath("sandbox-rpc", env);
  if (installed !== undefined) {
    return { command: installed, args: ["--stdio"], env: {}, origin: "sandbox-rpc on PATH" };
  }
  throw new NoServer(
    `No Python ${MINIMUM.join(".")} or newer was found, and no sandbox-rpc on PATH.`,
    [...tried, "sandbox-rpc on PATH"],
  );
}

interface Python {
  readonly path: string;
  readonly why: string;
}

async function environment(
  { environment }: Choice,
  ask: Probe,
  tried: string[],
): Promise<Python | undefined> {
  if (environment === undefined) return undefined;
  tried.push(environment);
  const found = await ask(environment);
  return found === undefined
    ? undefined
    : { path: found, why: "the extension's virtual environment" };
}

/**
 * The Python of this host: the one that the user has `chosen`, else the first on PATH that is new
 * enough. `tried` gets what was looked at.
 */
export async function findPython(
  chosen: string,
  env: Variables,
  tried: string[],
  ask: Probe = probe,
): Promise<Python | undefined> {
  if (chosen) {
    const wanted = expanded(chosen);
    const file = wanted.includes("/") ? wanted : (onPath(wanted, env) ?? wanted);
    const found = await ask(file);
    if (found !== undefined) return { path: found, why: "kvmSandbox.server.interpreter" };
    // The user's word is not silently replaced by another choice.
    throw new NoServer(
      `kvmSandbox.server.interpreter is ${wanted}, which is no Python ${MINIMUM.join(".")} or newer.`,
      [wanted],
    );
  }
  for (const name of NAMES) {
    const file = onPath(name, env) ?? (name === "python3" ? "/usr/bin/python3" : undefined);
    if (file === undefined) continue;
    tried.push(file);
    const found = await ask(file);
    if (found !== undefined) return { path: found, why: file };
  }
  return undefined;
}

function expanded(file: string): string {
  return file === "~" || file.startsWith("~/") ? path.join(os.homedir(), file.slice(1)) : file;
}
