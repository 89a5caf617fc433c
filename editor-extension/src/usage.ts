/** What a machine takes of this host, from /proc; nothing is started for it. */
import * as fs from "node:fs";

import type { Usage } from "./words";

const PAGE_BYTES = 4096;
/** Clock ticks in a second, as Linux shows them to programs on every architecture we know. */
const TICKS = 100;

export class UsageReader {
  private last: { pid: number; ticks: number; time: number } | undefined;

  constructor(
    private readonly proc = "/proc",
    private readonly now: () => number = Date.now,
  ) {}

  read(pid: number): Usage | undefined {
    try {
      const text = fs.readFileSync(`${this.proc}/${pid}/stat`, "utf8");
      // The name may hold spaces and parentheses; what follows the last one is numbers.
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      const ticks = Number(fields[11]) + Number(fields[12]);
      const residentMib = (Number(fields[21]) * PAGE_BYTES) / (1 << 20);
      const time = this.now();
      const before = this.last?.pid === pid ? this.last : undefined;
      this.last = { pid, ticks, time };
      const seconds = before ? (time - before.time) / 1000 : 0;
      const cpuPercent =
        before && seconds > 0
          ? Math.round(((ticks - before.ticks) / TICKS / seconds) * 100)
          : undefined;
      return { residentMib, cpuPercent };
    } catch {
      return undefined;
    }
  }
}

/** Whether a process exists. */
export function isAlive(pid: number | undefined): boolean {
  if (pid === undefined) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
