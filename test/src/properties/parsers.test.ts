/** Parsers: what they print they read back, and whatever they are given they throw nothing but a StorageError. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  ConfigTree,
  GIB,
  MAX_SIZE_GIB,
  StorageError,
  environmentLayer,
  expandVariables,
  fieldsOfOpts,
  formatAddress,
  formatInstanceID,
  formatLocalDevices,
  formatSize,
  formatTransaction,
  gibOfBytes,
  bytesOfGiB,
  isLocal,
  parseAddress,
  parseDuration,
  parseFilter,
  parseFlag,
  parseInstanceID,
  parseLocalDevices,
  parseMask,
  parseQueryValue,
  parseSize,
  parseTransaction,
  placesOf,
  wireJson,
} from "@libstorage/model";

/** Any text, well-formed or not, and texts made of the characters that parsers care for. */
const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: fc.constantFrom(...Array.from("=:,&%+/()|!*<>~\\ ag019.-_[]{}\"'\0\n$")) }),
);

function throwsOnlyOurs(act: () => unknown): void {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof StorageError, `threw ${String(error)}`);
    assert.equal(error.code, "invalid-argument");
    assert.ok(error.message.length > 0);
  }
}

const PARSERS: Readonly<Record<string, (text: string) => unknown>> = {
  parseInstanceID,
  parseLocalDevices,
  parseTransaction,
  parseAddress,
  parseSize,
  parseDuration,
  parseFlag,
  parseMask,
  parseFilter: (text) => parseFilter(text)({ name: text, fields: { a: "b" }, list: [1, true] }),
  "parseQueryValue flag": (text) => parseQueryValue("p", "flag", [text]),
  "parseQueryValue mask": (text) => parseQueryValue("p", "mask", [text, text]),
  "parseQueryValue text": (text) => parseQueryValue("p", "text", [text]),
  "parseQueryValue count": (text) => parseQueryValue("p", "count", [text]),
};

describe("given anything", () => {
  for (const [name, parse] of Object.entries(PARSERS))
    it(`${name} throws nothing but a StorageError`, () => {
      fc.assert(
        fc.property(anyText, (text) => throwsOnlyOurs(() => parse(text))),
        { numRuns: 2000 },
      );
    });

  it("long and deep texts end no parser", () => {
    const texts = [
      "(".repeat(100_000),
      "(!".repeat(50_000),
      "=".repeat(100_000),
      "1h".repeat(50_000),
    ];
    for (const parse of Object.values(PARSERS))
      for (const text of [...texts, "a=" + ",".repeat(100_000), "9".repeat(100_000)]) {
        const started = performance.now();
        throwsOnlyOurs(() => parse(text));
        assert.ok(performance.now() - started < 2000, "it took too long");
      }
  });

  it("a configuration tree reads any JSON", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const tree = new ConfigTree(value);
        tree.leaves();
        tree.merge(new ConfigTree(value)).toObject();
      }),
    );
  });

  it("opts of any JSON become fields of texts", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (opts) => {
        for (const value of Object.values(fieldsOfOpts(opts))) assert.equal(typeof value, "string");
      }),
    );
  });
});

/** No separator of the header, no blank at its ends. */
const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,15}$/);

describe("what is printed is read back", () => {
  it("instance IDs", () => {
    const ids = fc.record(
      {
        id: fc.stringMatching(/^[^,]{0,20}$/),
        driver: word,
        service: fc.oneof(word, fc.constant("")),
        fields: fc.dictionary(fc.string({ minLength: 1 }), fc.string(), { minKeys: 1 }),
        metadata: fc.jsonValue(),
      },
      { requiredKeys: ["id", "driver", "service"] },
    );
    fc.assert(
      fc.property(ids, (id) => {
        const text = formatInstanceID(id);
        assert.equal(formatInstanceID(parseInstanceID(text)), text);
        const { fields, metadata, ...rest } = parseInstanceID(text);
        assert.deepEqual(rest, { id: id.id, driver: id.driver, service: id.service });
        assert.deepEqual(
          new Map(Object.entries(fields ?? {})),
          new Map(Object.entries(id.fields ?? {})),
        );
        assert.equal(JSON.stringify(metadata), JSON.stringify(id.metadata));
      }),
    );
  });

  it("local devices", () => {
    const path = fc.stringMatching(/^\/[a-z0-9/]{0,20}$/);
    const maps = fc.dictionary(path, path);
    fc.assert(
      fc.property(word, maps, (driver, deviceMap) => {
        const lower = driver.toLowerCase();
        const read = parseLocalDevices(formatLocalDevices({ driver: lower, deviceMap }));
        assert.equal(read.driver, lower);
        assert.deepEqual({ ...read.deviceMap }, { ...deviceMap });
      }),
    );
  });

  it("transactions", () => {
    fc.assert(
      fc.property(fc.uuid({ version: [1, 3, 4, 5] }), fc.nat(), (txID, txCR) => {
        assert.deepEqual(parseTransaction(formatTransaction({ txID, txCR })), { txID, txCR });
      }),
    );
  });

  it("addresses", () => {
    const host = fc.oneof(
      fc.domain(),
      fc.ipV4(),
      fc.constantFrom("", "localhost", "::1", "fe80::1%eth0"),
    );
    const tcp = fc.record({
      kind: fc.constant("tcp" as const),
      host,
      port: fc.integer({ min: 0, max: 65_535 }),
    });
    const unix = fc.record({
      kind: fc.constant("unix" as const),
      path: fc.stringMatching(/^\/[a-zA-Z0-9 ._/-]{1,40}$/),
    });
    fc.assert(
      fc.property(fc.oneof(tcp, unix), (address) => {
        assert.deepEqual(parseAddress(formatAddress(address)), { ...address });
        if (address.kind === "unix") assert.ok(isLocal(address));
      }),
    );
  });

  it("sizes", () => {
    const gib = fc.integer({ min: 0, max: MAX_SIZE_GIB });
    fc.assert(
      fc.property(gib, (size) => {
        assert.equal(gibOfBytes(bytesOfGiB(size)), size);
        assert.equal(parseSize(String(size)), size * GIB);
        assert.equal(parseSize(`${size}GiB`), size * GIB);
        assert.equal(parseSize(formatSize(Math.min(size, 1023) * GIB)), Math.min(size, 1023) * GIB);
      }),
    );
  });

  it("durations", () => {
    const units = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
    const count = fc.nat(10_000);
    fc.assert(
      fc.property(fc.record({ h: count, m: count, s: count, ms: count }), (parts) => {
        const names = ["h", "m", "s", "ms"] as const;
        const text = names.map((unit) => `${parts[unit]}${unit}`).join("");
        const total = names.reduce((sum, unit) => sum + parts[unit] * units[unit], 0);
        assert.equal(parseDuration(text), total);
      }),
    );
  });

  it("masks, flags and counts", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 31 }), fc.boolean(), (number, flag) => {
        assert.equal(parseMask(String(number)), number);
        assert.equal(parseQueryValue("p", "count", [String(number)]), number);
        assert.equal(parseFlag(String(flag)), flag);
      }),
    );
  });

  it("JSON on the wire", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = wireJson(value);
        assert.equal(JSON.stringify(JSON.parse(text)), JSON.stringify(value));
        assert.doesNotMatch(text, /[<>&\u2028\u2029]/);
      }),
    );
  });
});

describe("filters", () => {
  /** Every character that means something to a filter, as its bytes. */
  const escaped = (text: string): string =>
    [...new TextEncoder().encode(text)]
      .map((byte) => `\\${byte.toString(16).padStart(2, "0")}`)
      .join("");
  const value = fc.string({ unit: "grapheme", minLength: 1 });

  it("find a name by its escaped text, and nothing else", () => {
    fc.assert(
      fc.property(value, value, (name, other) => {
        const filter = parseFilter(`(name=${escaped(name)})`);
        assert.equal(filter({ name }), true);
        assert.equal(filter({ name: other }), other.toLowerCase() === name.toLowerCase());
        assert.equal(filter({}), false);
      }),
    );
  });

  it("obey the laws of and, or and not", () => {
    const names = fc.constantFrom("a", "b", "c");
    fc.assert(
      fc.property(names, names, names, (name, x, y) => {
        const is = (text: string): boolean => parseFilter(text)({ name });
        assert.equal(is(`(!(name=${x}))`), !is(`(name=${x})`));
        assert.equal(is(`(&(name=${x})(name=${y}))`), is(`(name=${x})`) && is(`(name=${y})`));
        assert.equal(is(`(|(name=${x})(name=${y}))`), is(`(name=${x})`) || is(`(name=${y})`));
      }),
    );
  });

  it("match by the beginning, the middle and the end", () => {
    const part = fc.stringMatching(/^[a-z]{1,5}$/);
    fc.assert(
      fc.property(part, part, part, (a, b, c) => {
        const object = { name: a + b + c };
        for (const pattern of [`${a}*`, `*${c}`, `${a}*${c}`, `*${b}*`, `${a}*${b}*${c}`, "*"])
          assert.ok(parseFilter(`(name=${pattern})`)(object), pattern);
        assert.equal(parseFilter(`(name=${a}${b}${c}x*)`)(object), false);
      }),
    );
  });
});

describe("scopes", () => {
  const scopes = fc.array(word, { maxLength: 4 });

  it("look at the most particular place first and at the bare key last, each once", () => {
    fc.assert(
      fc.property(scopes, word, (names, key) => {
        const places = placesOf(names, key);
        assert.equal(places[0], [...names, key].join("."));
        assert.equal(places.at(-1), key);
        assert.equal(places.length, 2 ** names.length);
      }),
    );
  });

  it("find what stands in a tree, in any case", () => {
    fc.assert(
      fc.property(
        fc.array(
          word.filter((one) => !one.includes(".")),
          { minLength: 1, maxLength: 4 },
        ),
        (path) => {
          const tree = new ConfigTree({ [path.join(".")]: "value" });
          assert.equal(tree.find(path.join(".").toUpperCase())?.value, "value");
          assert.deepEqual(tree.problems, []);
        },
      ),
    );
  });

  it("replace variables, and name those that are not set", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const { missing } = expandVariables(text, {});
        const env = Object.fromEntries(missing.map((name) => [name, "x"]));
        assert.deepEqual(expandVariables(text, env).missing, []);
        assert.equal(expandVariables(text.replaceAll("$", "$$$$"), {}).text, text);
      }),
    );
  });

  it("read nothing from a variable that may mean anything", () => {
    fc.assert(
      fc.property(word, (key) => {
        const layer = environmentLayer({ [key.toUpperCase()]: "x" });
        if (!key.includes(".")) assert.equal(layer.find(key), undefined);
      }),
    );
  });
});
