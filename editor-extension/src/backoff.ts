/** When a server that has died may be started again. */
const DELAYS_MS = [250, 1000, 2000, 4000, 8000] as const;
/** So many starts within `WINDOW_MS`, and it is left alone until the user asks. */
export const MOST = DELAYS_MS.length;
const WINDOW_MS = 3 * 60_000;

export class Backoff {
  private deaths: number[] = [];

  constructor(private readonly now: () => number = Date.now) {}

  /** Note a death; milliseconds to wait before the next start, or undefined: leave it. */
  died(): number | undefined {
    const now = this.now();
    this.deaths = [...this.deaths.filter((time) => now - time < WINDOW_MS), now];
    return DELAYS_MS[this.deaths.length - 1];
  }

  /** The user asks: begin anew. */
  forget(): void {
    this.deaths = [];
  }
}
