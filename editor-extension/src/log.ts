/** The extension's output channel; its level is the editor's own setting for it. */
import * as vscode from "vscode";

export const CHANNEL = "KVM Sandbox";

export function openLog(): vscode.LogOutputChannel {
  return vscode.window.createOutputChannel(CHANNEL, { log: true });
}
