/** The wildcards of the hypervisor front-end, against the C library. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { isMatch, problemOfLocation } from "@libstorage/server";

/** Answers 1 or 0 for each pair of wildcard and path, as the C library's fnmatch does with FNM_PATHNAME. */
const ORACLE = `
import ctypes, ctypes.util, json, sys
libc = ctypes.CDLL(ctypes.util.find_library("c"))
libc.setlocale(6, b"C.UTF-8")
for line in sys.stdin:
    pattern, path = (text.encode() for text in json.loads(line))
    print(1 if libc.fnmatch(pattern, path, 1) == 0 else 0)
`;

type Pair = readonly [pattern: string, path: string];

function fnmatch(pairs: readonly Pair[]): readonly boolean[] {
  const input = pairs.map((pair) => JSON.stringify(pair)).join("\n");
  const { stdout, status, stderr } = spawnSync("python3", ["-c", ORACLE], {
    input,
    encoding: "utf8",
    maxBuffer: 64 * 1024 ** 2,
  });
  assert.equal(status, 0, stderr);
  return stdout
    .trim()
    .split("\n")
    .map((line) => line === "1");
}

const missing =
  spawnSync("python3", ["-c", "import ctypes"]).status === 0 ? false : "python3 is not installed";

/** The same numbers every time, so that a failure can be seen again. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (state >> 8) % below;
  };
}

const PIECES =
  "a b . - * * ? ** x.img [ab] [!a] [^a] [a-c] []a] [[:alpha:]] [!]a] ] \\* \\[ \\a \\\\ {a,b} +(a) ! # @(a|b) [.] [a-] [\\]] [[:digit:]b] $ ^ (a|b) a{1,2}".split(
    " ",
  );
// Letters of several bytes stand in the cases below: glibc tries their single bytes too when they do not fit.
const TEXTS = "a b . - x.img c {a,b} +(a) aa [ ] ! # * \\ 1 $ ^ (a|b)".split(" ");

function pairsFrom(seed: number, count: number): readonly Pair[] {
  const below = numbers(seed);
  const pick = (list: readonly string[]): string => list[below(list.length)] ?? "";
  const some = (list: readonly string[]): string =>
    Array.from({ length: 1 + below(4) }, () => pick(list)).join("");
  const path = (segments: number, segment: () => string): string =>
    Array.from({ length: segments }, () => `/${segment()}`).join("");
  /** A path that has a chance to fit. */
  const fitting = (pattern: string): string =>
    pattern.replace(/\\(.)|\*+|\?|\[[^/]*?\]/g, (special, plain: string | undefined) => {
      if (plain !== undefined) return plain;
      if (special.startsWith("*")) return below(3) === 0 ? "" : some(TEXTS);
      return pick(["a", "b", "1", "c", "]", "-", "."]);
    });
  return Array.from({ length: count }, (_, index): Pair => {
    const segments = 1 + below(3);
    const pattern = path(segments, () => some(PIECES));
    if (index % 3 > 0) return [pattern, fitting(pattern)];
    return [pattern, path(1 + below(3), () => some(TEXTS))];
  }).filter(
    ([pattern, text]) =>
      problemOfLocation(pattern) === undefined && !/\/\.{0,2}(?:\/|$)/.test(text),
  );
}

describe("wildcards of file locations", () => {
  it("match what fnmatch with FNM_PATHNAME matches, and nothing else", { skip: missing }, () => {
    const pairs = pairsFrom(7, 60_000);
    const expected = fnmatch(pairs);
    const fits = expected.filter(Boolean).length;
    assert.ok(fits > 5_000 && pairs.length - fits > 5_000, `${fits} of ${pairs.length} fit`);
    const wrong = pairs.filter(([pattern, path], at) => isMatch(pattern, path) !== expected[at]);
    assert.deepEqual(wrong, []);
  });

  const cases: readonly (readonly [string, string, boolean])[] = [
    ["/var/lib/xen/images/xen*.img", "/var/lib/xen/images/xen1.img", true],
    ["/var/lib/xen/images/xen*.img", "/var/lib/xen/images/xen/1.img", false],
    ["/var/lib/qemu/*", "/var/lib/qemu/a/b", false],
    ["/var/lib/qemu/**", "/var/lib/qemu/a/b", false],
    ["/var/lib/qemu/*", "/var/lib/qemu/.hidden", true],
    ["/v/{a,b}", "/v/a", false],
    ["/v/!(a)", "/v/b", false],
    ["/v/[!a]", "/v/b", true],
    ["/v/[!a]", "/v/a", false],
    ["/v/a?b", "/v/a/b", false],
    ["/v/#a", "/v/#a", true],
    ["/v/?", "/v/é", true],
    ["/v/[é]*", "/v/éa", true],
    ["/v/é?", "/v/éä", true],
  ];
  for (const [pattern, path, isFit] of cases)
    it(`${pattern} ${isFit ? "fits" : "does not fit"} ${path}`, () =>
      assert.equal(isMatch(pattern, path), isFit));

  it("agree with fnmatch on the cases above", { skip: missing }, () => {
    assert.deepEqual(
      fnmatch(cases.map(([pattern, path]) => [pattern, path])),
      cases.map(([, , isFit]) => isFit),
    );
  });
});

describe("problems of a wildcard", () => {
  for (const pattern of [
    "images/*",
    "/a//b",
    "/a/../b",
    "/a/./b",
    "/a/",
    "/a/[b",
    "/a[/b]",
    "/a/[!]",
    "/a\\",
    "/a\n*",
  ])
    it(`${JSON.stringify(pattern)} is refused`, () =>
      assert.notEqual(problemOfLocation(pattern), undefined));
  for (const pattern of ["/dev/vg0/*", "/a/[b]", "/a/\\[b", "/a/[]b]*", "/a/[[:alpha:]_]?", "/*"])
    it(`${pattern} is taken`, () => assert.equal(problemOfLocation(pattern), undefined));
});
