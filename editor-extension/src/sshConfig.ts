/** The user's SSH configuration: does it know our aliases, and the one line that teaches it. */
import { execFile } from "node:child_process";
import * as fs from "node:fs/promises";
import * as os from "node:os";
import * as path from "node:path";

const LIMIT_MS = 10_000;
/** As many as Linux follows. */
const MOST_LINKS = 40;

/** The file that remote windows read: the provider's setting, else OpenSSH's own place. */
export function configPath(setting: string | undefined, home = os.homedir()): string {
  if (!setting) return path.join(home, ".ssh", "config");
  return setting === "~" || setting.startsWith("~/") ? path.join(home, setting.slice(1)) : setting;
}

/** Whether OpenSSH, reading this file, knows the alias as ours: its key pinned under the name. */
export async function knows(file: string, alias: string): Promise<boolean> {
  const output = await new Promise<string>((resolve) => {
    execFile("ssh", ["-F", file, "-G", "--", alias], { timeout: LIMIT_MS }, (error, out) =>
      resolve(error ? "" : out),
    );
  });
  // ssh prints keywords and host names in small letters.
  return output.split("\n").includes(`hostkeyalias ${alias.toLowerCase()}`);
}

/** The line to add. */
export function includeLine(ours: string): string {
  return `Include "${ours.replaceAll("%", "%%")}"`;
}

/** A configuration with the line at its top, where no Host block above it can hide it. */
export function withInclude(text: string, ours: string): string {
  const line = includeLine(ours);
  if (text.split("\n").some((one) => one.trim() === line)) {
    // It is there, and did not help: something above it is in the way.
    const rest = text.split("\n").filter((one) => one.trim() !== line);
    return `${line}\n${rest.join("\n")}`;
  }
  return `# Sandboxes of KVM Sandbox: their aliases, with pinned keys.\n${line}\n\n${text}`;
}

/** Add the line; the file keeps its mode and its bytes, and a link stays a link. */
export async function include(file: string, ours: string): Promise<void> {
  const real = await destination(file);
  let mode = 0o600;
  let text = "";
  try {
    mode = (await fs.stat(real)).mode & 0o777;
    // Latin-1 has every byte: the file may be in any encoding, or in several.
    text = await fs.readFile(real, "latin1");
  } catch (error) {
    if (!isMissing(error)) throw error;
    await fs.mkdir(path.dirname(real), { recursive: true, mode: 0o700 });
  }
  const fresh = `${real}.${process.pid}.new`;
  const bytes = Buffer.from(ours, "utf8").toString("latin1");
  await fs.writeFile(fresh, withInclude(text, bytes), { mode, encoding: "latin1" });
  await fs.chmod(fresh, mode);
  await fs.rename(fresh, real);
}

/** Where links lead, also where nothing is there yet. */
async function destination(file: string): Promise<string> {
  let found = path.resolve(file);
  for (let links = 0; links < MOST_LINKS; links++) {
    try {
      return await fs.realpath(found);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    let target: string;
    try {
      target = await fs.readlink(found);
    } catch {
      // Nothing there; its folder may be behind a link.
      const folder = path.dirname(found);
      return folder === found ? found : path.join(await destination(folder), path.basename(found));
    }
    found = path.resolve(await fs.realpath(path.dirname(found)), target);
  }
  throw new Error(`${file} leads through too many links.`);
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}
