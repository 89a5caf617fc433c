/**
 * What the user has set in the editor.
 *
 * Every setting has the scope `application`: neither a folder's `.vscode/settings.json`, which the
 * guest can write, nor the machine settings of a remote window, which lie in the guest, can change
 * how a sandbox is started. A folder's own wishes are in its `sandbox.toml`, which may only tighten.
 */
import * as vscode from "vscode";

import type { StartParams } from "./protocol";
import { START_SETTINGS } from "./startSettings";

export const SECTION = "kvmSandbox";

/** Parameters for a start: only what was set, so that the user's config.toml holds for the rest. */
export function startSettings(): Partial<StartParams> {
  const section = vscode.workspace.getConfiguration(SECTION);
  const given: Record<string, unknown> = {};
  for (const { key, field } of START_SETTINGS) {
    const value = section.inspect(key)?.globalValue;
    if (value !== undefined && value !== null) given[field] = value;
  }
  return given as Partial<StartParams>;
}

export function setting<T>(key: string, otherwise: T): T {
  return vscode.workspace.getConfiguration(SECTION).get<T>(key, otherwise);
}
