import assert from "node:assert/strict";
import { it } from "node:test";
import type { VolumeRecord } from "../../core/driver.js";
import { MAX_RECORD_BYTES, NO_ATTACHMENTS, NO_FIELDS } from "./records.js";
import { parseSnapshot, parseVolume, snapshotText, volumeText } from "./records.js";

const GIB = 1024 ** 3;
const SOURCE = { kind: "directory", path: "/x/vol/vfs-000" } as const;

/** What the reference wrote for `{"name":"vol-one"}`. */
const PLAIN = '{"name":"vol-one","size":1,"id":"vfs-000","type":""}';

const FULL: VolumeRecord = {
  id: "vfs-000",
  name: "full",
  sizeBytes: 2 * GIB,
  type: "gold",
  availabilityZone: "z",
  iops: 5,
  encrypted: true,
  networkName: "n",
  status: "s",
  fields: { a: "1", b: "" },
  attachments: [
    {
      instanceID: { id: "h", driver: "vfs", service: "", fields: { r: "e" }, metadata: [1] },
      deviceName: "/dev/xvda",
      mountPoint: "/mnt",
      status: "attached",
      fields: { x: "y" },
      epoch: 4,
      since: 99,
    },
  ],
  epoch: 4,
  source: SOURCE,
};

it("a plain record is the reference's, and shares what is empty", () => {
  const { record, projectID } = parseVolume(PLAIN, "vfs-000", SOURCE);
  assert.equal(record.fields, NO_FIELDS);
  assert.equal(record.attachments, NO_ATTACHMENTS);
  assert.equal(record.sizeBytes, GIB);
  assert.equal(projectID, undefined);
  assert.equal(volumeText(record, undefined), PLAIN);
});

it("everything of a volume is written and read back", () => {
  assert.deepEqual(parseVolume(volumeText(FULL, 77), "vfs-000", SOURCE), {
    record: FULL,
    projectID: 77,
  });
});

it("names that mean something to JavaScript are names", () => {
  const instanceID = { id: "__proto__", driver: "", service: "" };
  const [attachment] = FULL.attachments;
  assert.ok(attachment !== undefined);
  const volume = {
    ...FULL,
    fields: Object.fromEntries([["__proto__", "x"]]),
    attachments: [{ ...attachment, instanceID }],
  };
  const { record } = parseVolume(volumeText(volume, undefined), "vfs-000", SOURCE);
  assert.equal(record.attachments[0]?.instanceID.id, "__proto__");
  assert.equal(Object.getPrototypeOf(record.fields), Object.prototype);
});

it("null instance IDs of the reference are read", () => {
  const text =
    '{"attachments":[{"deviceName":"","instanceID":null,"status":"","volumeID":"v"}],' +
    '"name":"x","id":"vfs-000","type":""}';
  const { record } = parseVolume(text, "vfs-000", SOURCE);
  assert.deepEqual(record.attachments[0]?.instanceID, { id: "", driver: "", service: "" });
});

it("what is wrong is named", () => {
  const read = (text: string) => () => parseVolume(text, "vfs-000", SOURCE);
  assert.throws(read('{"name":"x","id":"vfs-001","type":""}'), /its id is "vfs-001"/);
  assert.throws(read('{"name":"x","id":"vfs-000","type":"","size":"1"}'), /size: /);
  assert.throws(read("{"), SyntaxError);
});

it("a snapshot of the reference has no data, one of ours says that it has", () => {
  const theirs =
    '{"name":"s","id":"v-000","startTime":10,"status":"online","volumeID":"v","volumeSize":1}';
  const { record, hasData } = parseSnapshot(theirs, "v-000", SOURCE);
  assert.equal(hasData, false);
  assert.deepEqual(record.source, { kind: "none" });
  assert.equal(record.startTime, 10_000);
  assert.equal(snapshotText(record, false), theirs);
  assert.equal(parseSnapshot(snapshotText(record, true), "v-000", SOURCE).hasData, true);
});

it("a record that could not be read again is not written", () => {
  const large = { a: "x".repeat(MAX_RECORD_BYTES) };
  assert.throws(() => volumeText({ ...FULL, fields: large }, undefined), {
    code: "resource-exhausted",
  });
});
