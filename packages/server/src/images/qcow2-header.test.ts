import assert from "node:assert/strict";
import { it } from "node:test";
import { objectionTo, parseQcow2Header } from "./qcow2-header.js";

const MAX = 2 ** 40;

/** A header as qemu-img 7.2 writes it for a disk of 1 GiB. */
function header(change: (head: Buffer) => void = () => {}): Buffer {
  const head = Buffer.alloc(64 * 1024);
  head.writeUInt32BE(0x514649fb, 0);
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(16, 20);
  head.writeBigUInt64BE(1024n ** 3n, 24);
  head.writeUInt32BE(2, 36);
  head.writeBigUInt64BE(0x30000n, 40);
  head.writeBigUInt64BE(0x10000n, 48);
  head.writeUInt32BE(1, 56);
  head.writeUInt32BE(4, 96);
  head.writeUInt32BE(112, 100);
  change(head);
  return head;
}

const objection = (change: (head: Buffer) => void, max = MAX): string | undefined =>
  objectionTo(parseQcow2Header(header(change)), max);

it("takes a plain header", () => {
  const parsed = parseQcow2Header(header());
  assert.equal(parsed.sizeBytes, 1024n ** 3n);
  assert.equal(parsed.version, 3);
  assert.equal(objectionTo(parsed, MAX), undefined);
  assert.equal(
    objection((head) => head.writeUInt32BE(2, 4)),
    undefined,
  );
});

const REFUSED: readonly (readonly [string, (head: Buffer) => void, RegExp])[] = [
  [
    "a backing file",
    (head) => {
      head.writeBigUInt64BE(512n, 8);
      head.writeUInt32BE(11, 16);
      head.write("/etc/shadow", 512);
    },
    /names the backing file "\/etc\/shadow"/,
  ],
  [
    "a backing file of an empty name",
    (head) => head.writeBigUInt64BE(512n, 8),
    /names the backing file/,
  ],
  [
    "an external data file, by its feature",
    (head) => head.writeBigUInt64BE(4n, 72),
    /data in another file/,
  ],
  [
    "an external data file, by its extension alone",
    (head) => {
      head.writeUInt32BE(0x44415441, 112);
      head.writeUInt32BE(11, 116);
      head.write("/etc/shadow", 120);
    },
    /data in another file/,
  ],
  [
    "an external data file behind another extension",
    (head) => {
      head.writeUInt32BE(0x6803f857, 112);
      head.writeUInt32BE(3, 116);
      head.writeUInt32BE(0x44415441, 128);
    },
    /data in another file/,
  ],
  ["encryption", (head) => head.writeUInt32BE(2, 32), /encrypted/],
  ["a corrupt mark", (head) => head.writeBigUInt64BE(2n, 72), /corrupt/],
  ["a dirty mark", (head) => head.writeBigUInt64BE(1n, 72), /not closed/],
  ["features from the future", (head) => head.writeBigUInt64BE(1n << 40n, 72), /features/],
  ["clusters that are too large", (head) => head.writeUInt32BE(40, 20), /clusters/],
  ["a disk that is too large", (head) => head.writeBigUInt64BE(2n ** 62n, 24), /maxImportSize/],
];

for (const [what, change, why] of REFUSED)
  it(`refuses ${what}`, () => assert.match(objection(change) ?? "", why));

const NO_QCOW2: readonly (readonly [string, () => Buffer])[] = [
  ["nothing", () => Buffer.alloc(0)],
  ["a header that is cut short", () => header().subarray(0, 80)],
  ["another magic", () => header((head) => head.writeUInt32BE(0x4b444d56, 0))],
  ["version 4", () => header((head) => head.writeUInt32BE(4, 4))],
  ["a header length behind its end", () => header((head) => head.writeUInt32BE(1 << 30, 100))],
  ["a header length of nothing", () => header((head) => head.writeUInt32BE(0, 100))],
  ["a backing file's name far away", () => header((head) => head.writeBigUInt64BE(2n ** 40n, 8))],
  [
    "a backing file's name that is too long",
    () =>
      header((head) => {
        head.writeBigUInt64BE(512n, 8);
        head.writeUInt32BE(5000, 16);
      }),
  ],
];

for (const [what, make] of NO_QCOW2)
  it(`does not read ${what}`, () => assert.throws(() => parseQcow2Header(make())));

it("ends on any bytes whatever", () => {
  let state = 12_345;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state % below;
  };
  for (let round = 0; round < 20_000; round += 1) {
    const head = header();
    for (let change = 0; change <= random(6); change += 1) head[random(160)] = random(256);
    try {
      const parsed = parseQcow2Header(head);
      const named = parsed.backingFile !== undefined || parsed.hasDataFile;
      assert.ok(!named || objectionTo(parsed, MAX) !== undefined);
    } catch (error) {
      assert.ok(error instanceof Error && !(error instanceof RangeError), String(error));
    }
  }
});
