/** Follows one sandbox by watching its files: no process is asked, nothing is polled. */
import * as fs from "node:fs";
import * as path from "node:path";

import type { Layout } from "./place";
import type { Sandbox } from "./protocol";

/** Several files change at each step of a start. */
const SETTLE_MS = 40;

/** Whose state is followed: a folder's, or that of a name. */
export type Whose = { readonly workspace: string } | { readonly name: string };

export interface Seen {
  readonly name: string | undefined;
  /** Undefined: no virtual machine. */
  readonly sandbox: Sandbox | undefined;
}

export class Watch {
  private readonly watchers = new Map<string, fs.FSWatcher>();
  private timer: NodeJS.Timeout | undefined;
  private last = "";
  private closed = false;
  seen: Seen = { name: undefined, sandbox: undefined };

  constructor(
    private readonly layout: Layout,
    private readonly whose: Whose,
    private readonly changed: (seen: Seen) => void,
  ) {}

  start(): void {
    this.look();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    for (const watcher of this.watchers.values()) watcher.close();
    this.watchers.clear();
  }

  /** Read the state now. */
  look(): void {
    if (this.closed) return;
    const name = "name" in this.whose ? this.whose.name : this.layout.meaning(this.whose.workspace);
    // Watched before it is read, so that no change falls between the two.
    this.follow(name);
    const sandbox = name === undefined ? undefined : this.layout.read(name);
    const now = JSON.stringify([name, sandbox]);
    if (now === this.last) return;
    this.last = now;
    this.seen = { name, sandbox };
    this.changed(this.seen);
  }

  private follow(name: string | undefined): void {
    const { base, names, byPath, rooms } = this.layout;
    const wanted = new Set<string>();
    const ways = [[base, rooms, ...(name === undefined ? [] : [this.layout.room(name)])]];
    if ("workspace" in this.whose) ways.push([base, names, byPath]);
    for (const way of ways) {
      // The deepest one that exists tells of the next one's coming; those above, of its going.
      const there = way.filter((folder) => fs.existsSync(folder));
      for (const folder of there.slice(-2)) wanted.add(folder);
      if (there.length === 0) wanted.add(nearest(base));
    }
    for (const [folder, watcher] of this.watchers) {
      if (wanted.has(folder)) continue;
      watcher.close();
      this.watchers.delete(folder);
    }
    for (const folder of wanted) if (!this.watchers.has(folder)) this.add(folder);
  }

  private add(folder: string): void {
    try {
      const watcher = fs.watch(folder, { persistent: false }, (event, file) => {
        // A folder that was replaced is another one, which this watcher knows nothing of.
        if (event === "rename" && file === path.basename(folder)) this.drop(folder);
        this.soon();
      });
      watcher.on("error", () => {
        this.drop(folder);
        this.soon();
      });
      this.watchers.set(folder, watcher);
    } catch {
      // Not there any more, or out of watches: a command's answer still brings the news.
    }
  }

  private drop(folder: string): void {
    this.watchers.get(folder)?.close();
    this.watchers.delete(folder);
  }

  private soon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), SETTLE_MS);
  }
}

function nearest(folder: string): string {
  let found = folder;
  while (!fs.existsSync(found) && found !== path.dirname(found)) found = path.dirname(found);
  return found;
}
