import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { StorageError, parseFilter } from "@libstorage/model";

/** As RFC 4515, section 3, writes a value. */
function escaped(text: string): string {
  return text.replace(
    /[*()\\\0]/g,
    (char) => `\\${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

const text = fc.string({ unit: "grapheme-ascii", minLength: 1 });

describe("any filter", () => {
  it("is compiled, or refused as bad", () => {
    const pieces = fc.constantFrom(
      "(",
      ")",
      "&",
      "|",
      "!",
      "=",
      "*",
      "\\",
      ">=",
      "~=",
      "name",
      "x",
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(pieces).map((all) => all.join("")),
        ),
        (filter) => {
          try {
            assert.equal(typeof parseFilter(filter)({ name: "x" }), "boolean");
          } catch (error) {
            assert.ok(
              error instanceof StorageError && error.message === "bad filter",
              String(error),
            );
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });
  it("finds an escaped value, as a whole and by its ends", () => {
    fc.assert(
      fc.property(text, text, (start, end) => {
        const object = { name: start + end };
        assert.ok(parseFilter(`(name=${escaped(start + end)})`)(object));
        assert.ok(parseFilter(`(name=${escaped(start)}*${escaped(end)})`)(object));
      }),
    );
  });
  it("and its negation are never both true", () => {
    fc.assert(
      fc.property(text, fc.integer(), (name, size) => {
        for (const inner of [`(name=${escaped(name)})`, `(size>=${size})`, "(x=*)"])
          for (const object of [{ name, size }, { size: size + 1 }, {}])
            assert.notEqual(parseFilter(inner)(object), parseFilter(`(!${inner})`)(object));
      }),
    );
  });
});
