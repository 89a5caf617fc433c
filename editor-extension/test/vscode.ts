/** What of the editor's API the tested modules touch. */
import { vi } from "vitest";

export const window = {
  createOutputChannel: vi.fn(),
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
export const commands = { executeCommand: vi.fn() };
export const env = { uriScheme: "vscode", appRoot: "" };
export const extensions = { getExtension: vi.fn() };
