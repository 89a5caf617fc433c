import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";

import type { Layout } from "../src/place";

/** As the service remembers a folder. */
export function remember(layout: Layout, name: string, workspace: string, more = {}): void {
  fs.mkdirSync(path.join(layout.names, name), { recursive: true });
  fs.mkdirSync(layout.byPath, { recursive: true });
  const digest = createHash("sha256").update(workspace).digest("hex");
  fs.writeFileSync(path.join(layout.byPath, digest), name);
  fs.writeFileSync(
    path.join(layout.names, name, "record.json"),
    JSON.stringify({ name, workspace, schema: 1, ...more }),
  );
}

/** As a supervisor writes its state. */
export function write(layout: Layout, name: string, value: object): void {
  fs.mkdirSync(layout.room(name), { recursive: true });
  const fresh = `${layout.state(name)}.new`;
  fs.writeFileSync(fresh, JSON.stringify({ name, schema: 1, ...value }));
  fs.renameSync(fresh, layout.state(name));
}
