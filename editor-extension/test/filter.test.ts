import * as fs from "node:fs";
import { expect, test } from "vitest";

import { Filter } from "../src/filter";

/** The examples that the service's filter is held to; text is Latin-1. */
const { harmless, harmful, cleaned } = JSON.parse(
  fs.readFileSync("../tests/console-filter.json", "utf8"),
) as {
  harmless: string[];
  harmful: Record<string, string>;
  cleaned: Record<string, [text: string, left: string]>;
};

const feed = (filter: Filter, text: string) =>
  Buffer.from(filter.feed(Buffer.from(text, "latin1"))).toString("latin1");

test.each(harmless)("%j passes", (text) => {
  expect(feed(new Filter(), text)).toBe(text);
});

test.each(Object.entries(harmful))("%s is dropped, and only that", (_, text) => {
  expect(feed(new Filter(), `a${text}b`)).toBe("ab");
});

test.each(Object.entries(harmful))("%s is dropped wherever it is cut", (_, text) => {
  const filter = new Filter();
  const shown = [...`a${text}\x1b[1mb`].map((one) => feed(filter, one));
  expect(shown.join("")).toBe("a\x1b[1mb");
});

test.each(Object.entries(cleaned))("%s: what is left", (_, [text, left]) => {
  expect(feed(new Filter(), `a${text}b`)).toBe(`a${left}b`);
  const filter = new Filter();
  expect([...`${text}b`].map((one) => feed(filter, one)).join("")).toBe(`${left}b`);
});

test("an endless sequence does not swallow the console", () => {
  const shown = feed(new Filter(), `\x1b]0;${"x".repeat(5000)}\r\nalive\r\n`);
  expect(shown.endsWith("alive\r\n")).toBe(true);
});
