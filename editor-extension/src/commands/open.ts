/** "Open in KVM Sandbox": start, then the remote window. */
import * as vscode from "vscode";

import type { Context } from "../context";
import * as messages from "../messages";
import type { Ports } from "../ports";
import * as problem from "../problem";
import { isCancelled } from "../problem";
import { type Sandbox, SandboxStartRequest, type StartParams } from "../protocol";
import { openWindow } from "../remote";
import { userSettings } from "../settings";
import type { StatusBar } from "../statusBar";
import { chooseFolder, nameOthers } from "./target";

export interface Parts {
  readonly context: Context;
  readonly status: StatusBar;
  readonly ports: Ports;
}

export async function open(
  parts: Parts,
  clicked: unknown,
  more: Partial<StartParams> = {},
): Promise<void> {
  const { context } = parts;
  const folder = await chooseFolder(context, clicked);
  if (folder === undefined) return;
  nameOthers(context, folder);
  const sandbox = await start(parts, folder, more);
  if (!sandbox) return;
  if (context.here.kind === "inside") return;
  await enter(parts, sandbox);
}

/** Start the sandbox of a folder, with progress and Cancel; undefined where it did not start. */
export async function start(
  { context, status }: Parts,
  workspace: string,
  more: Partial<StartParams> = {},
): Promise<Sandbox | undefined> {
  status.failed(undefined);
  try {
    const sandbox = await withSteps("Starting sandbox", true, async (report, token) =>
      context.server.insist(
        SandboxStartRequest,
        { userSettings: userSettings(), ...more, workspace },
        { token, progress: report },
      ),
    );
    context.look();
    for (const warning of sandbox.warnings ?? []) context.log.warn(`${sandbox.name}: ${warning}`);
    return sandbox;
  } catch (error) {
    if (isCancelled(error)) {
      context.look();
      void messages.info(
        goesOn(context, workspace)
          ? "The start was cancelled here; it goes on for another program that waits for it."
          : "The start was cancelled; nothing is left of it.",
      );
      return undefined;
    }
    status.failed(error instanceof Error ? error.message : String(error));
    await problem.show(context, error, "start");
    return undefined;
  }
}

/** Whether somebody else wants the start that was cancelled here. */
function goesOn({ layout }: Context, workspace: string): boolean {
  const name = layout.meaning(workspace);
  const state = name === undefined ? undefined : layout.read(name)?.state;
  return state === "starting" || state === "running";
}

/** Open the remote window of a running sandbox. */
export async function enter({ context, ports }: Parts, sandbox: Sandbox): Promise<void> {
  try {
    await vscode.window.withProgress(
      {
        location: vscode.ProgressLocation.Notification,
        title: `Opening ${sandbox.name}`,
        cancellable: true,
      },
      async (progress, token) =>
        openWindow(
          context,
          sandbox,
          (message) => progress.report({ message: messages.plain(message) }),
          token,
        ),
    );
    ports.watch(sandbox);
  } catch (error) {
    if (!isCancelled(error)) await problem.show(context, error, "remote window");
  }
}

type Step = { message?: string; percentage?: number };

/** A notification with steps, and with Cancel where that reaches the work. */
export async function withSteps<T>(
  title: string,
  cancellable: boolean,
  work: (report: (step: Step) => void, token: vscode.CancellationToken) => Promise<T>,
): Promise<T> {
  return await vscode.window.withProgress(
    { location: vscode.ProgressLocation.Notification, title, cancellable },
    async (progress, token) => {
      let done = 0;
      return await work(({ message, percentage }) => {
        const increment = percentage === undefined ? undefined : percentage - done;
        done = percentage ?? done;
        progress.report({
          ...(message === undefined ? {} : { message: messages.plain(message) }),
          ...(increment === undefined ? {} : { increment }),
        });
      }, token);
    },
  );
}
