/** What was left in the folder for programs of this host to run: told at a stop, and on request. */
import * as vscode from "vscode";

import type { Context } from "../context";
import * as messages from "../messages";
import { type Changes, SandboxChangesRequest } from "../protocol";
import { chooseFolder } from "./target";

/** Paths named in the message; the document has all. */
const NAMED = 3;

/** All of it, as a document; also of a machine that has ended. */
export async function showChanges(context: Context): Promise<void> {
  const folder = await chooseFolder(context, undefined);
  if (folder === undefined) return;
  const name = context.layout.meaning(folder);
  if (name === undefined) {
    void messages.info(`No sandbox was ever opened for ${folder}.`);
    return;
  }
  await show(
    await vscode.window.withProgress(
      { location: vscode.ProgressLocation.Notification, title: "Looking through the folder" },
      async () => context.server.insist(SandboxChangesRequest, { name }),
    ),
  );
}

/** What a life that has ended has left; to be asked before the next one begins. */
export async function changesOf(context: Context, name: string): Promise<Changes | undefined> {
  try {
    return await context.server.insist(SandboxChangesRequest, { name });
  } catch (error) {
    context.log.warn(`the folder was not looked through: ${String(error)}`);
    return undefined;
  }
}

/** Warn of what runs by itself, or leads out; silent where there is nothing, or it is not known. */
export async function warnOf(found: Changes | undefined): Promise<void> {
  const text = found && warning(found);
  if (!found || text === undefined) return;
  const button = "Show Changes";
  if ((await messages.warn(text, button)) === button) await show(found);
}

/** A sentence; undefined where there is nothing to be careful of. */
export function warning({ name, changes }: Changes): string | undefined {
  const urgent = [...new Set(changes.filter((one) => one.byItself).map((one) => one.path))];
  const links = changes.filter((one) => one.link).length;
  const said: string[] = [];
  if (urgent.length > 0) {
    const more = urgent.length > NAMED ? ` and ${urgent.length - NAMED} more` : "";
    said.push(
      `what programs of this host run by themselves: ${urgent.slice(0, NAMED).join(", ")}${more}`,
    );
  }
  if (links > 0) said.push(`${links} link${links === 1 ? "" : "s"} out of the folder`);
  return said.length > 0
    ? `While ${name} ran, somebody wrote ${said.join(", and ")}. Look before you work here.`
    : undefined;
}

/** The lines of the document. */
export function report({ workspace, since, changes, complete }: Changes): string {
  const head = `Written in ${workspace}${since ? ` since ${since}` : ""}, for this host to run:`;
  const lines = changes.map(
    ({ path, why, byItself }) => `${byItself ? "!" : " "} ${JSON.stringify(path)}: ${why}`,
  );
  if (lines.length === 0) lines.push("  nothing that is known to be run");
  if (complete === false) lines.push("", "The folder is too large to be looked at in whole.");
  return `${[head, "", ...lines].join("\n")}\n`;
}

async function show(found: Changes): Promise<void> {
  const document = await vscode.workspace.openTextDocument({
    content: report(found),
    language: "plaintext",
  });
  await vscode.window.showTextDocument(document, { preview: true });
}
