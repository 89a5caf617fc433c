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

/**
 * The user's standing settings, by key: only what was set, so that config.toml holds for the rest.
 * They count as that file does, so a folder may tighten them.
 */
export function userSettings(): NonNullable<StartParams["userSettings"]> {
  const section = vscode.workspace.getConfiguration(SECTION);
  const given: NonNullable<StartParams["userSettings"]> = {};
  for (const { key } of START_SETTINGS) {
    const value = section.inspect<boolean | number | string>(key)?.globalValue;
    if (value !== undefined && value !== null) given[key] = value;
  }
  return given;
}

/** What an earlier start was asked for, as parameters of the next one. */
export function repeated(overrides: Readonly<Record<string, unknown>>): Partial<StartParams> {
  const given: Record<string, unknown> = {};
  for (const { key, field } of START_SETTINGS) {
    if (overrides[key] !== undefined) given[field] = overrides[key];
  }
  return given as Partial<StartParams>;
}

export function setting<T>(key: string, otherwise: T): T {
  return vscode.workspace.getConfiguration(SECTION).get<T>(key, otherwise);
}
