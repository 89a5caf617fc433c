/** Where this window is: at a folder of this host, in a sandbox, or where no sandbox can be. */
import * as fs from "node:fs";
import * as path from "node:path";
import * as vscode from "vscode";

import { hostOf } from "./authority";
import type { Layout } from "./place";
import type { Whose } from "./watch";

export const GUEST_WORKSPACE = "/home/dev/workspace";

export type Here =
  | { readonly kind: "folders"; readonly folders: readonly string[] }
  | { readonly kind: "inside"; readonly name: string }
  | { readonly kind: "elsewhere"; readonly reason: string };

const NAMES: Readonly<Record<string, string>> = { darwin: "macOS", win32: "Windows" };

export function here(layout: Layout): Here {
  const elsewhere = unable();
  if (elsewhere !== undefined) return { kind: "elsewhere", reason: elsewhere };
  const folders: string[] = [];
  for (const { uri } of vscode.workspace.workspaceFolders ?? []) {
    if (uri.scheme === "file") folders.push(real(uri.fsPath));
    else if (uri.scheme === "vscode-remote") {
      const host = hostOf(uri.authority);
      if (host !== undefined && layout.record(host) !== undefined) {
        return { kind: "inside", name: host };
      }
      return { kind: "elsewhere", reason: otherMachine(uri.authority) };
    }
  }
  return { kind: "folders", folders };
}

/** Why no sandbox can be started from here at all; undefined where one can. */
function unable(): string | undefined {
  if (process.env.SANDBOX_CONTAINER) {
    return "This window is in a sandbox already, and sandboxes are not started inside sandboxes.";
  }
  if (process.platform !== "linux") {
    const system = NAMES[process.platform] ?? process.platform;
    return (
      `Sandboxes are virtual machines of a Linux host, and this editor runs on ${system}: open the ` +
      "folder on a Linux machine over SSH or in WSL 2, and install the extension on that side."
    );
  }
  return undefined;
}

function otherMachine(authority: string): string {
  const [kind = "remote"] = authority.split("+");
  return (
    `This folder is on another machine (${kind}) than this extension: run \`sandbox\` in a terminal ` +
    'there, or let the extension run there by the setting "remote.extensionKind": ' +
    '{"sandbox-rpc.kvm-sandbox": ["workspace"]}.'
  );
}

/** The real path, as the service takes it; as it is where there is none. */
export function real(folder: string): string {
  try {
    return fs.realpathSync(folder);
  } catch {
    return path.resolve(folder);
  }
}

/** Whose state this window shows; undefined: none. */
export function shown(place: Here): Whose | undefined {
  if (place.kind === "inside") return { name: place.name };
  const [folder] = place.kind === "folders" ? place.folders : [];
  return folder === undefined ? undefined : { workspace: folder };
}
