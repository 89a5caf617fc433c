import { expect, test } from "vitest";

import { rule } from "../src/blocked";

const blocked = (host: string, port = 443, reason = "unlisted") =>
  rule({ name: "s", host, port, reason, method: "CONNECT", time: "", count: 1, sequence: 1 });

test("the rule that would help", () => {
  expect(blocked("github.com")).toBe("github.com");
  expect(blocked("github.com", 80)).toBe("github.com");
  expect(blocked("github.com", 8443, "port")).toBe("github.com:8443");
});

test("what no rule helps, or was decided, is not asked about", () => {
  for (const reason of ["blocked", "private", "sni-mismatch", "something new"]) {
    expect(blocked("github.com", 443, reason)).toBeUndefined();
  }
});

test("a host that is none is not shown", () => {
  for (const host of ["", "a b", "[click](https://evil)", "x\ny", "x".repeat(300)]) {
    expect(blocked(host)).toBeUndefined();
  }
});
