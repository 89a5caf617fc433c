/** Stop and Restart; both first say what is lost. */
import type { Context } from "../context";
import * as messages from "../messages";
import * as problem from "../problem";
import { type Sandbox, SandboxStopRequest } from "../protocol";
import { repeated } from "../settings";
import { losses } from "../words";
import { changesOf, warnOf } from "./changes";
import { enter, type Parts, start, withSteps } from "./open";
import { meant } from "./target";

export async function stop({ context }: Parts): Promise<void> {
  const sandbox = await running(context);
  if (!sandbox || !(await agreed("Stop", sandbox))) return;
  if (await end(context, sandbox)) await warnOf(await changesOf(context, sandbox.name));
}

export async function restart(parts: Parts): Promise<void> {
  const { context } = parts;
  const sandbox = await running(context);
  if (!sandbox || !(await agreed("Restart", sandbox))) return;
  if (!(await end(context, sandbox))) return;
  void warnOf(await changesOf(context, sandbox.name));
  // As SSH to its alias would start it: with what the last start was asked for, and it has been
  // shared before, so what spoke against the folder has been overruled before.
  const asked = context.layout.record(sandbox.name)?.overrides ?? {};
  const next = await start(parts, sandbox.workspace, { ...repeated(asked), force: true });
  if (!next) return;
  if (context.here.kind === "inside") return;
  const reopen = "Reopen";
  const chosen = await messages.info(
    `${next.name} runs again. A remote window of before has lost its machine.`,
    reopen,
  );
  if (chosen === reopen) await enter(parts, next);
}

async function running(context: Context): Promise<Sandbox | undefined> {
  if (context.here.kind === "elsewhere") {
    void messages.warn(context.here.reason);
    return undefined;
  }
  const sandbox = await meant(context);
  if (!sandbox) void messages.info("No sandbox runs for this folder.");
  return sandbox;
}

async function agreed(verb: "Stop" | "Restart", sandbox: Sandbox): Promise<boolean> {
  return (await messages.ask(`${verb} ${sandbox.name}?`, losses(sandbox), verb)) === verb;
}

async function end(context: Context, { name }: Sandbox): Promise<boolean> {
  try {
    // A stop is never undone, so there is nothing to cancel.
    await withSteps(`Stopping ${name}`, false, async (report) =>
      context.server.insist(SandboxStopRequest, { name }, { progress: report }),
    );
    context.look();
    return true;
  } catch (error) {
    if (!problem.isCancelled(error)) await problem.show(context, error, "stop");
    return false;
  }
}
