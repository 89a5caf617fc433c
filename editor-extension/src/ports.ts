/** "The guest listens on 3000: open it here?" Offered once for each port and life; never by itself. */
import type { ChildProcess } from "node:child_process";
import * as vscode from "vscode";

import type { Context } from "./context";
import { start } from "./guest";
import { offered, WATCHER } from "./listeners";
import * as messages from "./messages";
import * as problem from "./problem";
import { PortForwardRequest, type Sandbox } from "./protocol";
import { Questions, STOP } from "./questions";
import { setting } from "./settings";

export class Ports {
  private child: ChildProcess | undefined;
  private life = "";
  private readonly said = new Set<number>();
  private listening: readonly number[] = [];
  private readonly questions: Questions<{ name: string; port: number }>;

  constructor(private readonly context: Context) {
    this.questions = new Questions(
      (one) => this.offer(one.name, one.port),
      (error) => problem.show(context, error, "port"),
    );
    context.extension.subscriptions.push(
      context.onChange(({ sandbox }) => this.follow(sandbox)),
      { dispose: () => this.end() },
    );
  }

  /** Watch a sandbox that this window works with. */
  watch(sandbox: Sandbox): void {
    if (!setting("ports.offer", true) || !sandbox.ssh) return;
    const life = `${sandbox.name} ${sandbox.startedAt}`;
    if (this.child && this.life === life) return;
    this.end();
    let first = this.life !== life;
    if (first) {
      this.life = life;
      this.said.clear();
      this.questions.reset();
    }
    // perl's word for the script is quoted for the guest's shell, which has no $ of its own to add.
    const child = start(sandbox.ssh, `exec perl -e '${WATCHER.replaceAll("'", "'\\''")}'`);
    this.child = child;
    let rest = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()?.slice(-4096) ?? "";
      for (const line of lines) {
        const ports = offered(line);
        if (!ports) continue;
        this.heard(sandbox.name, ports, first);
        first = false;
      }
    });
    child.once("error", () => undefined);
    child.stderr?.resume();
    child.once("exit", () => {
      if (this.child === child) this.child = undefined;
    });
  }

  private follow(sandbox: Sandbox | undefined): void {
    if (sandbox?.state !== "running") {
      this.end();
      return;
    }
    const { here } = this.context;
    if (here.kind === "inside") this.watch(sandbox);
    else if (this.life.startsWith(`${sandbox.name} `)) this.watch(sandbox);
  }

  private end(): void {
    this.child?.kill();
    this.child = undefined;
    this.listening = [];
  }

  /** The ports that the guest listens on now; what it listens on from the start is the image's own. */
  heard(name: string, ports: readonly number[], first: boolean): void {
    this.listening = ports;
    for (const port of ports) {
      if (this.said.has(port)) continue;
      if (first || this.questions.add({ name, port })) this.said.add(port);
    }
  }

  private async offer(name: string, port: number): Promise<string | undefined> {
    const known = this.context.sandbox?.forwards?.some((one) => one.guestPort === port);
    if (known) return undefined;
    if (!this.listening.includes(port)) {
      // It has ended while the question waited.
      this.said.delete(port);
      return undefined;
    }
    const open = "Open";
    const forward = "Only Forward";
    const chosen = await messages.info(
      `${name} listens on port ${port}. Open it on this host?`,
      open,
      forward,
      STOP,
    );
    if (chosen === open || chosen === forward) {
      await openPort(this.context, name, port, chosen === open);
    }
    return chosen;
  }
}

/** Forward a port of the guest's, and open it in a browser. */
export async function openPort(
  context: Context,
  name: string,
  guestPort: number,
  browse: boolean,
): Promise<void> {
  const { host, hostPort } = await context.server.request(PortForwardRequest, { name, guestPort });
  if (browse) {
    await vscode.env.openExternal(vscode.Uri.parse(`http://${host}:${hostPort}/`));
  } else {
    void messages.info(`Port ${guestPort} of ${name} is ${host}:${hostPort} on this host.`);
  }
}
