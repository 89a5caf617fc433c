/** Scripts in the guest over the plain OpenSSH client, with the sandbox's own configuration. */
import { type ChildProcess, spawn } from "node:child_process";

export interface Address {
  readonly alias: string;
  readonly configFile: string;
}

/** The words of an ssh that never asks. */
export function sshWords(address: Address, ...command: string[]): string[] {
  return ["-F", address.configFile, "-o", "BatchMode=yes", "-T", address.alias, "--", ...command];
}

/** Start a command in the guest. */
export function start(address: Address, command: string): ChildProcess {
  return spawn("ssh", sshWords(address, command), { stdio: ["pipe", "pipe", "pipe"], cwd: "/" });
}
