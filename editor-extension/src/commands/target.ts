/** Which sandbox a command means. */
import * as vscode from "vscode";

import type { Context } from "../context";
import { real } from "../here";
import * as messages from "../messages";
import { type Sandbox, SandboxStatusRequest } from "../protocol";

/** The folder to work on: the one clicked, the one open, or one that the user chooses. */
export async function chooseFolder(
  context: Context,
  clicked: unknown,
): Promise<string | undefined> {
  const { here } = context;
  if (here.kind === "elsewhere") {
    void messages.warn(here.reason);
    return undefined;
  }
  // What is not `file:` is the guest's, in its own window, and means the machine.
  if (clicked instanceof vscode.Uri && clicked.scheme === "file") return real(clicked.fsPath);
  if (here.kind === "inside") return context.layout.record(here.name)?.workspace;
  const [only, ...more] = here.folders;
  if (only === undefined) return await askFolder();
  if (more.length === 0) return only;
  const chosen = await vscode.window.showQuickPick(
    here.folders.map((folder) => ({ label: `$(folder) ${folder}`, folder })),
    {
      title: "Which folder is to be opened in a sandbox?",
      placeHolder: "Only this folder is shared with it; the others stay out of its reach",
    },
  );
  return chosen?.folder;
}

async function askFolder(): Promise<string | undefined> {
  const found = await vscode.window.showOpenDialog({
    canSelectFiles: false,
    canSelectFolders: true,
    canSelectMany: false,
    title: "Choose the folder to open in a sandbox",
    openLabel: "Open in KVM Sandbox",
  });
  const [uri] = found ?? [];
  return uri && real(uri.fsPath);
}

/** Say which folders of the window the sandbox does not have. */
export function nameOthers(context: Context, folder: string): void {
  const { here } = context;
  if (here.kind !== "folders") return;
  const others = here.folders.filter((one) => one !== folder);
  if (!here.folders.includes(folder) || others.length === 0) return;
  void messages.info(`The sandbox shares ${folder}. Not shared: ${others.join(", ")}.`);
}

/** The running sandbox of this window; says so where there is none. */
export async function running(context: Context): Promise<Sandbox | undefined> {
  const { here } = context;
  if (here.kind === "elsewhere") {
    void messages.warn(here.reason);
    return undefined;
  }
  const found = await meant(context);
  if (found?.state === "running" || found?.state === "starting") return found;
  const start = "Open in KVM Sandbox";
  const chosen = await messages.info("No sandbox runs for this folder.", start);
  if (chosen === start) await vscode.commands.executeCommand("kvmSandbox.open");
  return undefined;
}

/** The sandbox of this window as its files say, or of the folder that the user chooses. */
export async function meant(context: Context): Promise<Sandbox | undefined> {
  const { here } = context;
  if (here.kind === "folders" && here.folders.length > 1) {
    const folder = await chooseFolder(context, undefined);
    if (folder === undefined) return undefined;
    const name = context.layout.meaning(folder);
    return name === undefined ? undefined : context.layout.read(name);
  }
  context.look();
  return context.sandbox;
}

/** The value as the service knows it. */
export function fresh(context: Context, { name }: Sandbox): Promise<Sandbox> {
  return context.server.insist(SandboxStatusRequest, { name });
}
