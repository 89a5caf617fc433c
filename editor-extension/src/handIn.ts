/**
 * What a remote window needs in the guest, put there from this host, so that nothing is downloaded.
 *
 * The editor's server is looked for where this very editor, or a provider of its remote windows, has
 * put it on this host, for this very build. The service copies it to where the sandbox keeps what
 * outlives a stop. Nothing is ever taken from another sandbox: what a guest could write, no other
 * guest runs.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";

/** Which server a window of this editor wants. */
export interface Build {
  /** Folder in the home folder: `.vscode-server`. */
  readonly dataFolder: string;
  readonly commit: string;
}

/** One thing to hand in. */
export interface Piece {
  /** File or folder on this host. */
  readonly source: string;
  /** Relative to the data folder. */
  readonly target: string;
}

/** Machine settings of a sandbox's remote window: ports are offered, not forwarded by themselves. */
export const MACHINE_SETTINGS = {
  "remote.autoForwardPorts": false,
  "remote.restoreForwardedPorts": false,
} as const;

/** The build of the editor whose program lies in `appRoot`. */
export function build(appRoot: string): Build | undefined {
  try {
    const text = fs.readFileSync(path.join(appRoot, "product.json"), "utf8");
    const { commit, serverDataFolderName } = JSON.parse(text) as Record<string, unknown>;
    const fit =
      typeof commit === "string" &&
      /^[0-9a-f]{40}$/.test(commit) &&
      typeof serverDataFolderName === "string" &&
      /^\.[A-Za-z0-9.-]+$/.test(serverDataFolderName);
    return fit ? { commit, dataFolder: serverDataFolderName } : undefined;
  } catch {
    return undefined;
  }
}

/** What this host has of it; empty where it has none. */
export function pieces(
  { dataFolder, commit }: Build,
  appRoot: string,
  node: string,
  home = os.homedir(),
): Piece[] {
  const local = path.join(home, dataFolder);
  const exists = (...parts: string[]) => fs.existsSync(path.join(local, ...parts));
  // Microsoft's Remote-SSH: a server, and the program that starts it.
  const modern = `cli/servers/Stable-${commit}`;
  const starter = `code-${commit}`;
  if (exists(modern, "server", "node") && exists(starter)) {
    return [modern, starter].map((target) => ({ source: path.join(local, target), target }));
  }
  for (const target of [`bin/${commit}`, `bin/linux-x64/${commit}`]) {
    if (exists(target, "node")) return [{ source: path.join(local, target), target }];
  }
  // This extension runs in such a server itself.
  if (fs.existsSync(path.join(appRoot, "out", "server-main.js"))) {
    const target = `bin/${commit}`;
    const found = [{ source: appRoot, target }];
    if (!fs.existsSync(path.join(appRoot, "node"))) {
      found.push({ source: node, target: `${target}/node` });
    }
    return found;
  }
  return [];
}

/** Whether the sandbox's persisted folder, as this host sees it, has the piece already. */
export function isThere(persisted: string, { dataFolder }: Build, { target }: Piece): boolean {
  return fs.existsSync(path.join(persisted, dataFolder, target));
}

/** Where the machine settings of a window lie, relative to the data folder. */
export const SETTINGS_FILE = "data/Machine/settings.json";
