/**
 * Notifications and questions, all of them: the editor makes links of `[text](command:...)`, and what
 * a folder, a guest or the service says must not become one.
 */
import * as vscode from "vscode";

/** Characters of a message; the log has the rest. */
const MOST = 800;

/** Text as it is, without links, of bounded length. */
export function plain(text: string, most = MOST): string {
  const short = text.length > most ? `${text.slice(0, most)}…` : text;
  return short.replaceAll("](", "] (");
}

export function info(text: string, ...buttons: string[]): Thenable<string | undefined> {
  return vscode.window.showInformationMessage(plain(text), ...buttons);
}

export function warn(text: string, ...buttons: string[]): Thenable<string | undefined> {
  return vscode.window.showWarningMessage(plain(text), ...buttons);
}

export function error(text: string, ...buttons: string[]): Thenable<string | undefined> {
  return vscode.window.showErrorMessage(plain(text), ...buttons);
}

/** A question that must be answered before anything else; Cancel is undefined. */
export function ask(
  text: string,
  detail: string,
  ...buttons: string[]
): Thenable<string | undefined> {
  const options = { modal: true, detail };
  return vscode.window.showWarningMessage(plain(text), options, ...buttons);
}
