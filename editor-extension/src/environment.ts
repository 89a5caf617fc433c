/**
 * A private virtual environment, for what needs compiled packages: commands in the guest by the
 * service, and downloads of images. Starting, stopping and the console do without.
 */
import { execFile } from "node:child_process";
import * as fs from "node:fs/promises";
import * as path from "node:path";

/** What the bundle cannot carry: built for one version of Python and one processor. */
export const COMPILED = ["paramiko>=5.1,<6", "zstandard>=0.22"] as const;
const FOLDER = "environment";
/** The one of before, until the next one is complete. */
const ASIDE = "environment.before";
const MARK = "complete";

/**
 * Its interpreter; undefined where it was never made, or not to the end, or for another interpreter
 * than the user has `chosen` now.
 */
export async function environmentPython(
  storage: string,
  chosen: string,
): Promise<string | undefined> {
  const folder = path.join(storage, FOLDER);
  try {
    const made = await fs.readFile(path.join(folder, MARK), "utf8");
    return made === mark(chosen) ? path.join(folder, "bin", "python3") : undefined;
  } catch {
    return undefined;
  }
}

/** Make it with pip as this host has it configured; where that fails, the one of before stays. */
export async function makeEnvironment(
  storage: string,
  python: string,
  chosen: string,
  report: (step: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const folder = path.join(storage, FOLDER);
  const aside = path.join(storage, ASIDE);
  await fs.mkdir(storage, { recursive: true });
  await putAside(folder, aside);
  try {
    report("Making a virtual environment");
    await run(python, ["-m", "venv", folder], signal);
    const inside = path.join(folder, "bin", "python3");
    report("Installing packages");
    await run(
      inside,
      ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", ...COMPILED],
      signal,
    );
    await fs.writeFile(path.join(folder, MARK), mark(chosen));
    await remove(aside);
    return inside;
  } catch (error) {
    await remove(folder);
    await fs.rename(aside, folder).catch(() => undefined);
    throw error;
  }
}

/** Move a whole one away; where it is not whole, the one that was put aside before it is kept. */
async function putAside(folder: string, aside: string): Promise<void> {
  const whole = await fs.access(path.join(folder, MARK)).then(
    () => true,
    () => false,
  );
  if (!whole) return remove(folder);
  await remove(aside);
  // Not made in a new place and moved here: scripts in it name the place where they were made.
  await fs.rename(folder, aside);
}

function remove(folder: string): Promise<void> {
  return fs.rm(folder, { recursive: true, force: true });
}

function mark(chosen: string): string {
  return [chosen, ...COMPILED].join("\n");
}

function run(command: string, args: readonly string[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, PIP_USER: "0", PYTHONPATH: "" };
    execFile(command, args, { cwd: "/", env, signal }, (error, out, err) => {
      if (!error) return resolve();
      const words = `${out}\n${err}`.trim().split("\n").slice(-3).join(" / ");
      // No address of a registry in a message.
      reject(new Error(words.replaceAll(/\w+:\/\/\S+/g, "(address)") || error.message));
    });
  });
}
