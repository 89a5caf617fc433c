/** One action that makes the private virtual environment. */
import * as vscode from "vscode";

import type { Context } from "../context";
import { makeEnvironment } from "../environment";
import { NoServer, onPath, probe } from "../interpreter";
import * as messages from "../messages";
import * as problem from "../problem";
import { setting } from "../settings";

export async function installPackages(context: Context): Promise<void> {
  const abort = new AbortController();
  try {
    const chosen = setting("server.interpreter", "");
    const python = await probe(chosen || (onPath("python3", process.env) ?? "/usr/bin/python3"));
    if (python === undefined) throw new NoServer("There is no Python 3.11 or newer.", [chosen]);
    await vscode.window.withProgress(
      {
        location: vscode.ProgressLocation.Notification,
        title: "Packages for the sandbox service",
        cancellable: true,
      },
      async (progress, token) => {
        token.onCancellationRequested(() => abort.abort());
        await makeEnvironment(
          context.storage,
          python,
          chosen,
          (message) => progress.report({ message }),
          abort.signal,
        );
      },
    );
    await context.server.restart();
    void messages.info(
      "The packages are installed, in a virtual environment of the extension's own.",
    );
  } catch (error) {
    if (!abort.signal.aborted) await problem.show(context, error, "packages");
  }
}
