/** Wiring: what the editor calls, and what is there from the start. Nothing is spawned here. */
import * as os from "node:os";
import * as vscode from "vscode";
import { Refusals } from "./blocked";
import { quoted } from "./bundle";
import { showChanges } from "./commands/changes";
import { doctor } from "./commands/doctor";
import { menu } from "./commands/menu";
import { open, type Parts } from "./commands/open";
import { installPackages } from "./commands/packages";
import { restart, stop } from "./commands/stop";
import { fresh, running } from "./commands/target";
import { openConsole } from "./console";
import { Context } from "./context";
import { cacheBase, Layout } from "./place";
import { openPort, Ports } from "./ports";
import * as problem from "./problem";
import { openTerminal } from "./remote";
import { Revival } from "./revival";
import { StatusBar } from "./statusBar";

let context: Context | undefined;

export function activate(extension: vscode.ExtensionContext): void {
  const layout = new Layout(cacheBase(process.env, os.homedir()));
  context = new Context(extension, layout);
  const parts: Parts = {
    context,
    status: new StatusBar(context),
    ports: new Ports(context),
  };
  new Refusals(context);
  new Revival(context);
  register(parts);
  const made = context;
  extension.subscriptions.push(
    vscode.workspace.onDidChangeWorkspaceFolders(() => made.follow()),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("kvmSandbox.server") && made.server.running) {
        void made.server.restart();
      }
    }),
  );
  context.follow();
}

export async function deactivate(): Promise<void> {
  await context?.server.end();
}

function register(parts: Parts): void {
  const { context } = parts;
  const add = (name: string, run: (clicked?: unknown) => Promise<void> | void) => {
    const guarded = async (clicked?: unknown) => {
      try {
        await run(clicked);
      } catch (error) {
        if (!problem.isCancelled(error)) await problem.show(context, error, name);
      }
    };
    context.extension.subscriptions.push(
      vscode.commands.registerCommand(`kvmSandbox.${name}`, guarded),
    );
  };
  add("open", (clicked) => open(parts, clicked));
  add("openWithProxy", (clicked) => open(parts, clicked, { network: "proxy" }));
  add("stop", () => stop(parts));
  add("restart", () => restart(parts));
  add("menu", () => menu(context));
  add("doctor", () => doctor(context));
  add("changes", () => showChanges(context));
  add("showLogs", () => context.log.show());
  add("installPackages", () => installPackages(context));
  add("console", async () => {
    const sandbox = await running(context);
    if (sandbox) openConsole(context, sandbox.name);
  });
  add("terminal", async () => {
    const sandbox = await running(context);
    if (sandbox) openTerminal(context, await fresh(context, sandbox));
  });
  add("copySshCommand", async () => {
    const ssh = (await running(context))?.ssh;
    if (!ssh) return;
    await vscode.env.clipboard.writeText(`ssh -F ${quoted(ssh.configFile)} ${ssh.alias}`);
    vscode.window.setStatusBarMessage("SSH command copied", 3000);
  });
  add("openPort", async () => {
    const sandbox = await running(context);
    if (!sandbox) return;
    const text = await vscode.window.showInputBox({
      title: `Port of ${sandbox.name} to open on this host`,
      validateInput: (value) =>
        /^\d+$/.test(value) && Number(value) > 0 && Number(value) < 65536
          ? undefined
          : "A number from 1 to 65535",
    });
    if (text) await openPort(context, sandbox.name, Number(text), true);
  });
}
