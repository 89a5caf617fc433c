/** What this host has and lacks, as a document. */
import * as vscode from "vscode";

import type { Context } from "../context";
import * as problem from "../problem";
import { type Doctor, HostDoctorRequest, type Verdict } from "../protocol";

const SIGNS: Readonly<Record<Verdict, string>> = { ok: "✓", warning: "!", error: "✗" };

export async function doctor(context: Context): Promise<void> {
  try {
    const found = await vscode.window.withProgress(
      { location: vscode.ProgressLocation.Notification, title: "Examining this host" },
      async () => context.server.insist(HostDoctorRequest, {}),
    );
    const content = report(found);
    const document = await vscode.workspace.openTextDocument({ content, language: "plaintext" });
    await vscode.window.showTextDocument(document, { preview: true });
  } catch (error) {
    await problem.show(context, error, "doctor");
  }
}

export function report({ ok, checks }: Doctor): string {
  const lines = [ok ? "Sandboxes can be started here." : "No sandbox can be started here.", ""];
  for (const { status, message, hint } of checks) {
    lines.push(`${SIGNS[status] ?? "?"} ${message}`);
    if (hint) lines.push(`    ${hint}`);
  }
  return `${lines.join("\n")}\n`;
}
