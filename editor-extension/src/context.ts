/** What the commands share; made once, when the extension is activated. */
import * as path from "node:path";
import * as vscode from "vscode";
import { Trace } from "vscode-jsonrpc/node";

import { type Bundle, install, writeLauncher } from "./bundle";
import { environmentPython } from "./environment";
import { type Here, here, shown } from "./here";
import { find, type Program } from "./interpreter";
import { openLog } from "./log";
import * as messages from "./messages";
import type { Layout } from "./place";
import type { Sandbox } from "./protocol";
import { Server } from "./server";
import { setting } from "./settings";
import { type Seen, Watch } from "./watch";

export class Context {
  readonly log = openLog();
  readonly server: Server;
  private watch: Watch | undefined;
  private readonly changes = new vscode.EventEmitter<Seen>();
  /** The state of this window's sandbox has changed. */
  readonly onChange = this.changes.event;

  constructor(
    readonly extension: vscode.ExtensionContext,
    readonly layout: Layout,
  ) {
    this.server = new Server(
      () => this.program(),
      this.log,
      (reason) => void this.gaveUp(reason),
      () => Trace.fromString(setting("trace.server", "off")),
    );
    extension.subscriptions.push(this.log, this.changes, {
      dispose: () => this.watch?.close(),
    });
  }

  /** Where this window is now. */
  get here(): Here {
    return here(this.layout);
  }

  get seen(): Seen {
    return this.watch?.seen ?? { name: undefined, sandbox: undefined };
  }

  /** The sandbox of this window, as its files say; undefined where none runs. */
  get sandbox(): Sandbox | undefined {
    return this.seen.sandbox;
  }

  /** Follow the sandbox of the folders that are open now. */
  follow(): void {
    this.watch?.close();
    const whose = shown(this.here);
    this.watch = whose && new Watch(this.layout, whose, (seen) => this.changes.fire(seen));
    this.watch?.start();
    if (!this.watch) this.changes.fire(this.seen);
  }

  /** Read the state again: an answer may come before its news. */
  look(): void {
    this.watch?.look();
  }

  get storage(): string {
    return this.extension.globalStorageUri.fsPath;
  }

  private async bundle(): Promise<Bundle | undefined> {
    return await install(path.join(this.extension.extensionPath, "bundled"), this.storage);
  }

  private async program(): Promise<Program> {
    const bundle = await this.bundle();
    const interpreter = setting("server.interpreter", "");
    const program = await find(
      {
        command: setting<string[]>("server.command", []),
        interpreter,
        bundled: bundle?.libs,
        environment: await environmentPython(this.storage, interpreter),
        launcher: bundle?.launcher ?? "",
      },
      process.env,
    );
    if (bundle && program.python) await writeLauncher(bundle, program.python);
    return program;
  }

  private async gaveUp(reason: string): Promise<void> {
    this.log.error(reason);
    const again = "Start Again";
    const logs = "Show Logs";
    const short = messages.plain(reason, 400);
    const chosen = await messages.error(`${short} Running sandboxes go on.`, again, logs);
    if (chosen === logs) this.log.show();
    if (chosen === again) await this.server.restart();
  }
}
