/** What a click on the status bar offers: what makes sense in this state. */
import * as vscode from "vscode";

import type { Context } from "../context";
import * as messages from "../messages";
import { network } from "../words";

interface Entry extends vscode.QuickPickItem {
  readonly command: string;
}

export async function menu(context: Context): Promise<void> {
  const { here } = context;
  if (here.kind === "elsewhere") {
    void messages.warn(here.reason);
    return;
  }
  const chosen = await vscode.window.showQuickPick(entries(context), {
    title: context.sandbox?.name ?? "KVM Sandbox",
    placeHolder: placeHolder(context),
  });
  if (chosen) await vscode.commands.executeCommand(chosen.command);
}

function placeHolder({ sandbox }: Context): string {
  if (!sandbox) return "No sandbox runs for this folder";
  const mode = network(sandbox.network);
  return `${sandbox.state}${mode ? `, network ${mode}` : ""}`;
}

function entries({ sandbox, here }: Context): Entry[] {
  const state = sandbox?.state;
  const up = state === "running";
  const on = up || state === "starting";
  const found: (Entry | undefined)[] = [
    up && here.kind !== "inside"
      ? entry("window", "Open Remote Window", "kvmSandbox.open")
      : undefined,
    on ? undefined : entry("vm-running", "Open in KVM Sandbox", "kvmSandbox.open"),
    on ? undefined : entry("shield", "Open with Network Proxy", "kvmSandbox.openWithProxy"),
    up ? entry("terminal", "Open Terminal in Sandbox", "kvmSandbox.terminal") : undefined,
    on ? entry("vm", "Show Console", "kvmSandbox.console") : undefined,
    up ? entry("globe", "Open Port of the Guest…", "kvmSandbox.openPort") : undefined,
    up ? entry("copy", "Copy SSH Command", "kvmSandbox.copySshCommand") : undefined,
    up ? entry("debug-restart", "Restart…", "kvmSandbox.restart") : undefined,
    on ? entry("debug-stop", "Stop…", "kvmSandbox.stop") : undefined,
    entry("diff", "Show Changes to Look At", "kvmSandbox.changes"),
    entry("output", "Show Logs", "kvmSandbox.showLogs"),
    entry("pulse", "Doctor", "kvmSandbox.doctor"),
  ];
  return found.filter((one) => one !== undefined);
}

function entry(icon: string, label: string, command: string): Entry {
  return { label: `$(${icon}) ${label}`, command };
}
