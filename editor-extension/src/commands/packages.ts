/** One action that makes the private virtual environment. */
import * as vscode from "vscode";

import type { Context } from "../context";
import { makeEnvironment } from "../environment";
import { findPython, NoServer } from "../interpreter";
import * as messages from "../messages";
import * as problem from "../problem";
import { setting } from "../settings";

export async function installPackages(context: Context): Promise<void> {
  const abort = new AbortController();
  try {
    const chosen = setting("server.interpreter", "");
    const tried: string[] = [];
    const python = await findPython(chosen, process.env, tried);
    if (python === undefined) throw new NoServer("There is no Python 3.11 or newer.", tried);
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
          python.path,
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
