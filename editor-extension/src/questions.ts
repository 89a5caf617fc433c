/** Questions that a guest causes: one at a time, few that wait, and an end where the user wants one. */

/** A guest that tries everything makes us forget, not grow. */
const MOST = 20;
/** The button that ends them, until the next life of the machine. */
export const STOP = "Stop Asking";

interface Round<T> {
  readonly waiting: T[];
  asking: boolean;
  stopped: boolean;
}

export class Questions<T> {
  private round: Round<T> = { waiting: [], asking: false, stopped: false };

  /** `put` shows one and does what was chosen; it returns what was chosen. */
  constructor(
    private readonly put: (one: T) => Promise<string | undefined>,
    private readonly failed: (error: unknown) => Promise<void>,
  ) {}

  /** Ask when those before have been answered; whether it will be. */
  add(one: T): boolean {
    const { round } = this;
    if (round.stopped || round.waiting.length >= MOST) return false;
    round.waiting.push(one);
    if (!round.asking) void this.ask(round);
    return true;
  }

  /** A new life: what waited is void, and the user has not said Stop. */
  reset(): void {
    // The one that is shown may stay for long, and is not waited for.
    this.round.waiting.length = 0;
    this.round = { waiting: [], asking: false, stopped: false };
  }

  private async ask(round: Round<T>): Promise<void> {
    round.asking = true;
    for (let one = round.waiting.shift(); one !== undefined; one = round.waiting.shift()) {
      try {
        if ((await this.put(one)) === STOP) {
          round.stopped = true;
          round.waiting.length = 0;
        }
      } catch (error) {
        await this.failed(error);
      }
    }
    round.asking = false;
  }
}
