/** "The proxy refused github.com: allow?" One question at a time, each host once in a machine's life. */
import type { Disposable } from "vscode-jsonrpc/node";

import type { Context } from "./context";
import * as messages from "./messages";
import * as problem from "./problem";
import {
  type Blocked,
  NetworkAllowRequest,
  NetworkBlockRequest,
  NetworkDidBlockNotification,
  SandboxStatusRequest,
} from "./protocol";
import { Questions, STOP } from "./questions";

/** Ports that a rule without one stands for. */
const USUAL = new Set([80, 443]);

/** What can be asked; undefined where no rule would help, or the user has decided already. */
export function rule({ host, port, reason }: Blocked): string | undefined {
  // It is shown to the user, and comes from the guest.
  if (!/^[A-Za-z0-9.:_-]{1,253}$/.test(host)) return undefined;
  if (reason !== "unlisted" && reason !== "port") return undefined;
  return USUAL.has(port) ? host : `${host}:${port}`;
}

export class Refusals {
  private readonly asked = new Set<string>();
  private readonly questions: Questions<{ name: string; wish: string }>;
  private life = "";
  private need: Disposable | undefined;

  constructor(private readonly context: Context) {
    this.questions = new Questions(
      (one) => this.put(one.name, one.wish),
      (error) => problem.show(context, error, "allowlist"),
    );
    context.extension.subscriptions.push(
      context.server.listen(NetworkDidBlockNotification, (one) => this.take(one)),
      context.onChange(() => this.follow()),
      { dispose: () => this.need?.dispose() },
    );
  }

  /** Keep a service while it has something to tell: where this window already works with one. */
  private follow(): void {
    const { sandbox, here, server } = this.context;
    const life = `${sandbox?.name} ${sandbox?.startedAt}`;
    if (life !== this.life) {
      this.life = life;
      this.asked.clear();
      this.questions.reset();
    }
    const wanted = sandbox?.state === "running" && sandbox.network === "proxy";
    if (!wanted) {
      this.need?.dispose();
      this.need = undefined;
    } else if (!this.need && (server.running || here.kind === "inside")) {
      this.need = server.need(() => undefined);
      server
        .request(SandboxStatusRequest, { name: sandbox.name })
        .catch((error) => this.context.log.warn(`refusals: ${error}`));
    }
  }

  private take(blocked: Blocked): void {
    const { sandbox, log } = this.context;
    if (blocked.name !== sandbox?.name) return;
    log.info(`${blocked.name}: refused ${blocked.host}:${blocked.port} (${blocked.reason})`);
    const wish = rule(blocked);
    if (wish === undefined || this.asked.has(wish)) return;
    if (this.questions.add({ name: blocked.name, wish })) this.asked.add(wish);
  }

  private async put(name: string, wish: string): Promise<string | undefined> {
    const [allow, once, never] = ["Allow", "Allow Once", "Never"] as const;
    const chosen = await messages.info(
      `${name} wanted to reach ${wish}; its proxy refused.`,
      allow,
      once,
      never,
      STOP,
    );
    const { server } = this.context;
    const params = { name, rules: [wish] };
    if (chosen === allow) await server.request(NetworkAllowRequest, params);
    if (chosen === once) await server.request(NetworkAllowRequest, { ...params, once: true });
    if (chosen === never) await server.request(NetworkBlockRequest, params);
    return chosen;
  }
}
