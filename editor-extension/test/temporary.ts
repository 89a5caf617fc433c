import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach } from "vitest";

const made: string[] = [];

afterEach(() => {
  for (const folder of made.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

/** A folder that is gone after the test. */
export function temporary(): string {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "kvm-sandbox-")));
  made.push(folder);
  return folder;
}

/** Ask until the answer is true, within a limit. */
export async function until(question: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (question()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`${what} did not come`);
}
