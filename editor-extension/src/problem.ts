/** Errors for people: what happened, what to do, and a button that helps. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import * as vscode from "vscode";
import { ResponseError } from "vscode-jsonrpc/node";

import type { Context } from "./context";
import { NoServer } from "./interpreter";
import * as messages from "./messages";
import type { ErrorData } from "./protocol";
import { SandboxErrorCode } from "./protocol";
import { CANCELLED } from "./server";

/** Characters of what went wrong: it may quote a guest at length, and the hint is to be seen. */
const MOST = 400;

export function isCancelled(error: unknown): boolean {
  return error instanceof ResponseError && error.code === CANCELLED;
}

interface Help {
  readonly label: string;
  readonly act: () => unknown;
}

/** Show an error; returns when it has been dismissed. */
export async function show(context: Context, error: unknown, what: string): Promise<void> {
  const { message, hint } = told(error);
  context.log.error(`${what}: ${message}${hint ? ` ${hint}` : ""}`);
  if (error instanceof Error && error.stack) context.log.debug(error.stack);
  const logs: Help = { label: "Show Logs", act: () => context.log.show() };
  const helps = [...help(error), logs];
  const short = messages.plain(message, MOST);
  const text = hint ? `${short} ${hint}` : short;
  const chosen = await messages.error(text, ...helps.map((one) => one.label));
  await helps.find((one) => one.label === chosen)?.act();
}

function told(error: unknown): { message: string; hint: string | undefined } {
  if (error instanceof ResponseError) {
    return { message: error.message, hint: (error.data as ErrorData | undefined)?.hint };
  }
  if (error instanceof NoServer) return { message: error.message, hint: undefined };
  return { message: error instanceof Error ? error.message : String(error), hint: undefined };
}

function help(error: unknown): Help[] {
  if (error instanceof NoServer) {
    return [
      { label: "Install Python…", act: () => installInTerminal("python3", "python3", "python") },
      { label: "Choose Interpreter…", act: () => openSetting("kvmSandbox.server.interpreter") },
    ];
  }
  if (!(error instanceof ResponseError)) return [];
  const data = error.data as (ErrorData & { tool?: string; setting?: string }) | undefined;
  const doctor = command("Run Doctor", "kvmSandbox.doctor");
  switch (error.code) {
    case SandboxErrorCode.QemuMissing:
      return [
        {
          label: "Install QEMU…",
          act: () =>
            installInTerminal("qemu-system-x86 qemu-utils", "qemu-kvm qemu-img", "qemu-base"),
        },
        doctor,
      ];
    case SandboxErrorCode.ToolMissing:
      return data?.tool === "python-packages"
        ? [command("Install Packages", "kvmSandbox.installPackages"), doctor]
        : [doctor];
    case SandboxErrorCode.KvmUnavailable:
      return [doctor];
    case SandboxErrorCode.SettingInvalid:
    case SandboxErrorCode.SettingUntrusted:
      return [{ label: "Open Settings", act: () => openSetting("kvmSandbox") }];
    case SandboxErrorCode.QemuFailed:
    case SandboxErrorCode.StartTimeout:
    case SandboxErrorCode.GuestFailed:
    case SandboxErrorCode.SshUnreachable:
      return [command("Show Console", "kvmSandbox.console"), doctor];
    default:
      return [];
  }
}

function command(label: string, id: string): Help {
  return { label, act: () => vscode.commands.executeCommand(id) };
}

function openSetting(key: string): Thenable<unknown> {
  return vscode.commands.executeCommand("workbench.action.openSettings", key);
}

/** A terminal with the command typed, for the user to read and to run. */
function installInTerminal(debian: string, fedora: string, arch: string): void {
  // As a `file:` address: else a remote window opens its terminals on the other side.
  const terminal = vscode.window.createTerminal({
    name: "Install",
    cwd: vscode.Uri.file(homedir()),
  });
  terminal.show();
  terminal.sendText(installCommand(distribution(), debian, fedora, arch), false);
}

function distribution(): string {
  try {
    const text = readFileSync("/etc/os-release", "utf8");
    return [...text.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].map((one) => one[1]).join(" ");
  } catch {
    return "";
  }
}

export function installCommand(ids: string, debian: string, fedora: string, arch: string): string {
  const words = ids.split(/\s+/);
  if (words.includes("fedora") || words.includes("rhel")) return `sudo dnf install ${fedora}`;
  if (words.includes("arch")) return `sudo pacman -S ${arch}`;
  return `sudo apt-get install ${debian}`;
}
