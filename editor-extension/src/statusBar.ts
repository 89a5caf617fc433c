/** The sandbox of this window in the status bar. */
import * as vscode from "vscode";

import type { Context } from "./context";
import { isAlive, UsageReader } from "./usage";
import { details, status } from "./words";

/** The tooltip has an age and a load; reading them is two small files. */
const REFRESH_MS = 15_000;

export class StatusBar {
  private readonly item: vscode.StatusBarItem;
  private readonly usage = new UsageReader();
  private timer: NodeJS.Timeout | undefined;
  private failure: string | undefined;

  constructor(private readonly context: Context) {
    this.item = vscode.window.createStatusBarItem("vm", vscode.StatusBarAlignment.Left, 90);
    this.item.name = "KVM Sandbox";
    this.item.command = "kvmSandbox.menu";
    context.extension.subscriptions.push(
      this.item,
      context.onChange(() => this.update()),
      { dispose: () => clearInterval(this.timer) },
    );
  }

  /** Show that the last start failed, until the state changes. */
  failed(message: string | undefined): void {
    this.failure = message;
    this.update();
  }

  update(): void {
    const { here, sandbox } = this.context;
    if (here.kind === "elsewhere" || (here.kind === "folders" && here.folders.length === 0)) {
      this.item.hide();
      return;
    }
    const alive = isAlive(sandbox?.pid);
    const looks = status(sandbox, alive);
    const failed = this.failure !== undefined && sandbox === undefined;
    if (sandbox !== undefined) this.failure = undefined;
    this.item.text = failed ? "$(error) Sandbox failed" : looks.text;
    this.item.backgroundColor =
      failed || looks.severity === "error"
        ? new vscode.ThemeColor("statusBarItem.errorBackground")
        : undefined;
    this.item.tooltip = this.tooltip();
    this.item.accessibilityInformation = { label: failed ? "Sandbox failed" : looks.label };
    this.item.show();
    const ticking = sandbox?.state === "running";
    if (ticking && !this.timer) this.timer = setInterval(() => this.update(), REFRESH_MS);
    if (!ticking) {
      clearInterval(this.timer);
      this.timer = undefined;
    }
  }

  private tooltip(): vscode.MarkdownString {
    const { sandbox, here } = this.context;
    const text = new vscode.MarkdownString(undefined, true);
    if (this.failure !== undefined && !sandbox) {
      text.appendMarkdown("**The last start failed**\n\n").appendText(this.failure);
      return text;
    }
    if (!sandbox) {
      text.appendMarkdown("**No sandbox runs for this folder.** Click for what can be done.");
      return text;
    }
    text.appendMarkdown("**").appendText(sandbox.name).appendMarkdown(`** is ${sandbox.state}`);
    if (here.kind === "inside") text.appendMarkdown(", and this window is in it");
    text.appendMarkdown("\n\n");
    const usage = sandbox.pid === undefined ? undefined : this.usage.read(sandbox.pid);
    for (const { name, value } of details(sandbox, Date.now(), usage)) {
      text.appendMarkdown(`${name}: `).appendText(value).appendMarkdown("  \n");
    }
    for (const warning of sandbox.warnings ?? []) {
      text.appendMarkdown("\n\n$(warning) ").appendText(warning);
    }
    if (sandbox.failure) text.appendMarkdown("\n\n$(error) ").appendText(sandbox.failure.message);
    return text;
  }
}
