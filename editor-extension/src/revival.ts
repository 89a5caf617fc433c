/** The remote window of a sandbox that was started anew: its connection is to a machine that is gone. */
import * as vscode from "vscode";

import type { Context } from "./context";
import * as messages from "./messages";
import type { Sandbox } from "./protocol";

export class Revival {
  private life: string | undefined;

  constructor(context: Context) {
    context.extension.subscriptions.push(
      context.onChange(({ sandbox }) => {
        if (context.here.kind === "inside") void this.follow(sandbox);
      }),
    );
  }

  private async follow(sandbox: Sandbox | undefined): Promise<void> {
    if (sandbox?.state !== "running") return;
    const before = this.life;
    this.life = sandbox.startedAt;
    if (before === undefined || before === this.life) return;
    const reopen = "Reopen";
    const chosen = await messages.info(
      `${sandbox.name} was started anew; this window still looks at the machine of before.`,
      reopen,
    );
    if (chosen === reopen) await vscode.commands.executeCommand("workbench.action.reloadWindow");
  }
}
