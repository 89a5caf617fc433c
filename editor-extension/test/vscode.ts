/** What of the editor's API the tested modules touch. */
import { vi } from "vitest";

export const window = {
  createOutputChannel: vi.fn(),
  createTerminal: vi.fn(),
  withProgress: vi.fn(),
  showInformationMessage: vi.fn(),
  showWarningMessage: vi.fn(),
  showErrorMessage: vi.fn(),
};
export const workspace: {
  workspaceFolders: unknown[] | undefined;
  getConfiguration: () => unknown;
} = {
  workspaceFolders: undefined,
  getConfiguration: () => ({ inspect: () => undefined, get: (_: string, other: unknown) => other }),
};
export class Uri {
  constructor(
    readonly scheme: string,
    readonly fsPath: string,
  ) {}
  static file(path: string): Uri {
    return new Uri("file", path);
  }
  static parse(text: string): Uri {
    const [scheme = ""] = text.split(":");
    return new Uri(scheme, text.slice(scheme.length + 1));
  }
}
export class ThemeIcon {}
export class EventEmitter<T> {
  private readonly listeners: ((value: T) => void)[] = [];
  readonly event = (listener: (value: T) => void) => this.listeners.push(listener);
  fire(value: T): void {
    for (const listener of this.listeners) listener(value);
  }
}
export const ConfigurationTarget = { Global: 1 };
export const ProgressLocation = { Notification: 15 };
export const commands = { executeCommand: vi.fn() };
export const env = { uriScheme: "vscode", appRoot: "" };
export const extensions = { getExtension: vi.fn() };
