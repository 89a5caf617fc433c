/**
 * Where sandboxes keep their state, read without starting a program.
 *
 * The names are those of `sandbox_rpc/host/paths.py`; `sandbox.json` is public, and its value is the
 * protocol's `Sandbox`.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";

import type { Sandbox } from "./protocol";

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
/** A state file is a few KiB; what is larger is not ours. */
const LARGEST = 1 << 20;
const SCHEMA = 1;

export type Variables = Readonly<Record<string, string | undefined>>;

/** What is remembered of a sandbox between its lives. */
export interface SandboxRecord {
  readonly name: string;
  /** Real path. */
  readonly workspace: string;
  /** What its last start was asked for beside the files, by key. */
  readonly overrides: Readonly<Record<string, unknown>>;
}

/** The folder that everything lies in. */
export function cacheBase(env: Variables, home: string): string {
  if (env.SANDBOX_CACHE_BASE) return path.resolve(env.SANDBOX_CACHE_BASE);
  if (env.XDG_CACHE_HOME) return path.join(path.resolve(env.XDG_CACHE_HOME), "sandbox");
  return path.join(home, ".cache", "sandbox");
}

/** All paths below one cache base. */
export class Layout {
  constructor(readonly base: string) {}

  get names(): string {
    return path.join(this.base, "names");
  }

  get byPath(): string {
    return path.join(this.names, "by-path");
  }

  get rooms(): string {
    return path.join(this.base, "kvm-vms");
  }

  /** The file that defines the aliases of all sandboxes. */
  get sshConfig(): string {
    return path.join(this.base, "ssh_config");
  }

  room(name: string): string {
    return path.join(this.rooms, name);
  }

  state(name: string): string {
    return path.join(this.room(name), "sandbox.json");
  }

  /** The sandbox of a folder, by its real path; undefined where it never had one. */
  nameOf(workspace: string): string | undefined {
    const file = path.join(this.byPath, createHash("sha256").update(workspace).digest("hex"));
    const name = read(file);
    return name !== undefined && NAME.test(name) ? name : undefined;
  }

  /** What is remembered under a name. */
  record(name: string): SandboxRecord | undefined {
    if (!NAME.test(name)) return undefined;
    const value = parsed(read(path.join(this.names, name, "record.json")));
    if (typeof value?.name !== "string" || typeof value.workspace !== "string") return undefined;
    const { overrides } = value;
    return {
      name: value.name,
      workspace: value.workspace,
      overrides: typeof overrides === "object" && overrides !== null ? { ...overrides } : {},
    };
  }

  /** The state of a sandbox; undefined where it has none, or one this version cannot read. */
  read(name: string): Sandbox | undefined {
    const value = parsed(read(this.state(name)));
    if (typeof value?.name !== "string" || typeof value.state !== "string") return undefined;
    if (typeof value.schema === "number" && value.schema > SCHEMA) return undefined;
    return value as unknown as Sandbox;
  }

  /**
   * The sandbox that a folder means: its own, or one that runs and shares a folder above it, since a
   * start in there enters that one.
   */
  meaning(workspace: string): string | undefined {
    const own = this.nameOf(workspace);
    if (own !== undefined) return own;
    for (let above = path.dirname(workspace); ; above = path.dirname(above)) {
      const name = this.nameOf(above);
      if (name !== undefined && this.read(name) !== undefined) return name;
      if (above === path.dirname(above)) return undefined;
    }
  }
}

function read(file: string): string | undefined {
  try {
    const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
    try {
      const found = fs.fstatSync(descriptor);
      if (!found.isFile() || found.size > LARGEST) return undefined;
      return fs.readFileSync(descriptor, "utf8");
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    return undefined;
  }
}

function parsed(text: string | undefined): Record<string, unknown> | undefined {
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
