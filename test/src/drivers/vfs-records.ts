/** Cases of vfs alone: its records, the reference's, broken ones. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bytesOfGiB } from "@libstorage/model";
import { attachmentOf, contextOf, snapshotOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";

/** The root of a vfs service: where its data is tells. */
export async function rootOf(fixture: Fixture): Promise<string> {
  const { source } = await fixture.create(900);
  await fixture.driver.volumeRemove(fixture.volume(900).id, contextOf());
  assert.equal(source.kind, "directory");
  return source.kind === "directory" ? dirname(dirname(source.path)) : "";
}

/** As the reference wrote them (section 18 of the contract, and the recorded lifecycle). */
const REFERENCE_VOLUME =
  '{"attachments":[{"deviceName":"/dev/xvda","instanceID":{"id":"host-a","driver":"vfs","service":""},' +
  '"status":"attached","volumeID":"vfs-001"}],"availabilityZone":"az1","encrypted":true,"iops":100,' +
  '"name":"vol-two","size":10,"id":"vfs-001","type":"gold","fields":{"count":"5","owner":"me"}}';
const REFERENCE_SNAPSHOT =
  '{"name":"snap-one","id":"vfs-001-000","startTime":1795235075,"status":"online","volumeID":"vfs-001",' +
  '"volumeSize":10,"fields":{"reason":"backup"}}';

const BROKEN_TEXTS: Readonly<Record<string, string>> = {
  "is empty": "",
  "is cut short": REFERENCE_VOLUME.slice(0, 100),
  "is no JSON": "\0\u0001 garbage {{{",
  "is a list": "[]",
  "is null": "null",
  "has a number as its name": '{"name":1,"id":"vfs-001","type":""}',
  "has no id": '{"name":"x","type":""}',
  "has another's id": '{"name":"x","id":"vfs-002","type":""}',
  "has a negative size": '{"name":"x","id":"vfs-001","type":"","size":-1}',
  "has a fractional size": '{"name":"x","id":"vfs-001","type":"","size":1.5}',
  "has a size of 2^63": '{"name":"x","id":"vfs-001","type":"","size":9223372036854775808}',
  "has fields that are no texts": '{"name":"x","id":"vfs-001","type":"","fields":{"a":{}}}',
  "is larger than a record may be": `${" ".repeat(1100 * 1024)}{}`,
};

/** One good volume beside what the case plants as vfs-001. */
async function listBeside(fixture: Fixture, plant: (root: string) => void) {
  const root = await rootOf(fixture);
  const good = await fixture.create(5);
  plant(root);
  const { volumes } = await fixture.list();
  assert.deepEqual(
    volumes.find(({ id }) => id === good.id),
    good,
    "the others are as ever",
  );
  assert.equal(volumes.length, 2);
  const broken = volumes.find(({ id }) => id === "vfs-001");
  assert.ok(broken !== undefined);
  return broken;
}

export const RECORD_CASES: readonly Case[] = [
  {
    title: "a folder made by the reference opens",
    async run(fixture) {
      const root = await rootOf(fixture);
      mkdirSync(join(root, "vol/vfs-001"));
      writeFileSync(join(root, "vol/vfs-001.json"), REFERENCE_VOLUME);
      const { volumes } = await fixture.list();
      assert.deepEqual(volumes, [
        {
          id: "vfs-001",
          name: "vol-two",
          sizeBytes: bytesOfGiB(10),
          type: "gold",
          availabilityZone: "az1",
          iops: 100,
          encrypted: true,
          fields: { count: "5", owner: "me" },
          attachments: [
            {
              deviceName: "/dev/xvda",
              instanceID: { id: "host-a", driver: "vfs", service: "" },
              status: "attached",
              epoch: 0,
              since: 0,
            },
          ],
          epoch: 0,
          source: { kind: "directory", path: join(root, "vol/vfs-001") },
        },
      ]);
    },
  },
  {
    title: "records are written as the reference writes them",
    async run(fixture) {
      const root = await rootOf(fixture);
      mkdirSync(join(root, "vol/vfs-001"));
      writeFileSync(join(root, "vol/vfs-001.json"), REFERENCE_VOLUME);
      const volume = await fixture.inspect("vfs-001");
      assert.ok(volume !== undefined);
      await fixture.driver.volumeUpdate(volume, contextOf());
      assert.equal(readFileSync(join(root, "vol/vfs-001.json"), "utf8"), REFERENCE_VOLUME);
    },
  },
  {
    title: "what the reference does not know stands in one member",
    async run(fixture) {
      const root = await rootOf(fixture);
      await fixture.attach(await fixture.create(0), "host-a", { epoch: 3, since: 17 });
      const record = JSON.parse(readFileSync(join(root, "vol/vfs-000.json"), "utf8"));
      assert.deepEqual(record["x-libstorage"], {
        epoch: 3,
        holders: { "host-a": { epoch: 3, since: 17 } },
      });
      assert.deepEqual(Object.keys(record.attachments[0]).toSorted(), [
        "deviceName",
        "instanceID",
        "status",
        "volumeID",
      ]);
    },
  },
  {
    title: "a snapshot of the reference is listed, and copied, but makes no volume",
    async run(fixture) {
      const root = await rootOf(fixture);
      writeFileSync(join(root, "snap/vfs-001-000.json"), REFERENCE_SNAPSHOT);
      const [snapshot] = (await fixture.list()).snapshots;
      assert.ok(snapshot !== undefined);
      assert.equal(snapshot.broken, undefined);
      assert.equal(snapshot.startTime, 1_795_235_075_000);
      const wanted = fixture.volume(7);
      await assert.rejects(
        fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf()),
        { code: "failed-precondition", message: /vfs-001-000 holds no data/ },
      );
      const second = snapshotOf(fixture.driver, 1, fixture.volume(1));
      const copy = await fixture.copySnapshot(snapshot, second, contextOf());
      assert.equal(copy.source.kind, "none");
      assert.equal((await fixture.list()).snapshots.length, 2);
    },
  },
  ...Object.entries(BROKEN_TEXTS).map(([what, text]): Case => ({
    title: `a record that ${what} breaks its volume only`,
    async run(fixture) {
      const broken = await listBeside(fixture, (root) => {
        mkdirSync(join(root, "vol/vfs-001"));
        writeFileSync(join(root, "vol/vfs-001.json"), text);
      });
      assert.match(broken.broken ?? "", /vfs-001\.json cannot be used/);
      assert.equal(broken.source.kind, "none");
      assert.deepEqual(await fixture.inspect("vfs-001"), broken);
      await assert.rejects(fixture.attach(broken, "host-a"), { code: "failed-precondition" });
      await assert.rejects(fixture.copyVolume(broken, fixture.volume(8), contextOf()), {
        code: "failed-precondition",
      });
    },
  })),
  {
    title: "a record that is a folder or a pipe breaks its volume only",
    async run(fixture) {
      const broken = await listBeside(fixture, (root) => mkdirSync(join(root, "vol/vfs-001.json")));
      assert.match(broken.broken ?? "", /not a plain file/);
      const root = await rootOf(fixture);
      rmdirSync(join(root, "vol/vfs-001.json"));
      run("mkfifo", [join(root, "vol/vfs-001.json")]);
      assert.match((await fixture.inspect("vfs-001"))?.broken ?? "", /not a plain file/);
    },
  },
  {
    title: "a corrupt snapshot record breaks that snapshot only",
    async run(fixture) {
      const root = await rootOf(fixture);
      const good = await fixture.snapshot(0, await fixture.create(0));
      writeFileSync(join(root, "snap/vfs-001-001.json"), "{");
      const { snapshots } = await fixture.list();
      assert.deepEqual(snapshots[0], good);
      assert.match(snapshots[1]?.broken ?? "", /cannot be used/);
    },
  },
  {
    title: "a volume whose data folder is missing is broken, and whole when it is back",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(1);
      rmdirSync(join(root, "vol/vfs-001"));
      const broken = await fixture.inspect(volume.id);
      assert.match(broken?.broken ?? "", /data folder .*vfs-001 is missing/);
      assert.equal(broken?.name, volume.name);
      await assert.rejects(fixture.snapshot(0, volume), { code: "failed-precondition" });
      mkdirSync(join(root, "vol/vfs-001"));
      assert.deepEqual(await fixture.inspect(volume.id), volume);
    },
  },
  {
    title: "a snapshot whose data folder is missing is broken",
    async run(fixture) {
      const root = await rootOf(fixture);
      const snapshot = await fixture.snapshot(0, await fixture.create(0));
      rmSync(join(root, "snap", snapshot.id), { recursive: true });
      assert.match((await fixture.list()).snapshots[0]?.broken ?? "", /is missing/);
    },
  },
  {
    title: "a data folder that is a file breaks its volume only",
    async run(fixture) {
      const broken = await listBeside(fixture, (root) => {
        writeFileSync(join(root, "vol/vfs-001.json"), REFERENCE_VOLUME);
        writeFileSync(join(root, "vol/vfs-001"), "");
      });
      assert.match(broken.broken ?? "", /is not a folder/);
    },
  },
  {
    title: "data whose record is lost is shown, and nothing is made over it",
    async run(fixture) {
      const broken = await listBeside(fixture, (root) => {
        mkdirSync(join(root, "vol/vfs-001"));
        writeFileSync(join(root, "vol/vfs-001/precious"), "data");
      });
      assert.match(broken.broken ?? "", /its record vfs-001\.json is missing/);
      await assert.rejects(fixture.create(1), { code: "already-exists" });
      const source = await fixture.create(0);
      const copy = fixture.copyVolume(source, fixture.volume(1), contextOf());
      await assert.rejects(copy, { code: "already-exists" });
      const root = await rootOf(fixture);
      assert.equal(readFileSync(join(root, "vol/vfs-001/precious"), "utf8"), "data");
    },
  },
  {
    title: "a snapshot's data whose record is lost is shown, and nothing is made over it",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(0);
      mkdirSync(join(root, "snap/vfs-000-000"));
      writeFileSync(join(root, "snap/vfs-000-000/precious"), "data");
      assert.match((await fixture.list()).snapshots[0]?.broken ?? "", /record .* is missing/);
      await assert.rejects(fixture.snapshot(0, volume), { code: "already-exists" });
      assert.equal(readFileSync(join(root, "snap/vfs-000-000/precious"), "utf8"), "data");
    },
  },
  {
    title: "names that can be no id are passed over",
    async run(fixture) {
      const root = await rootOf(fixture);
      const planted = [".hidden.json", "a b.json", "ü.json", "-x.json"];
      for (const name of planted) writeFileSync(join(root, "vol", name), "{}");
      writeFileSync(join(root, "vol/README"), "text");
      assert.deepEqual((await fixture.list()).volumes, []);
      for (const name of [...planted, "README"]) rmSync(join(root, "vol", name));
    },
  },
  {
    title: "leftovers of a run that was killed are not listed, and removed by the next",
    async run(fixture) {
      const root = await rootOf(fixture);
      await fixture.reopen();
      for (const name of [".tmp-1-1-vfs-003.json", "../snap/.tmp-1-2-x.json"])
        writeFileSync(join(root, "vol", name), "{}");
      mkdirSync(join(root, "vol/.tmp-copy-vfs-003/deep"), { recursive: true });
      assert.deepEqual(await fixture.list(), { volumes: [], snapshots: [] });
      await fixture.driver.close();
      assert.deepEqual(readdirSync(join(root, "vol")), []);
      assert.deepEqual(readdirSync(join(root, "snap")), []);
    },
  },
  {
    title: "a volume removed by hand is not brought back by a change",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(1);
      rmSync(join(root, "vol/vfs-001.json"));
      rmdirSync(join(root, "vol/vfs-001"));
      await assert.rejects(fixture.attach(volume, "host-a"), { code: "not-found" });
      await assert.rejects(fixture.driver.volumeUpdate(volume, contextOf()), { code: "not-found" });
      assert.deepEqual(readdirSync(join(root, "vol")), []);
    },
  },
  {
    title: "the device of a client that names none is the data folder, and has no token",
    async run(fixture) {
      const root = await rootOf(fixture);
      const held = await fixture.attach(await fixture.create(0), "host-a", { deviceName: "" });
      const [attachment] = held.attachments;
      assert.equal(attachment?.deviceName, join(root, "vol/vfs-000"));
      const { driver } = fixture;
      assert.equal(driver.attachToken(attachment ?? attachmentOf("x")), "");
      assert.equal(driver.attachToken(attachmentOf("x", { deviceName: "/dev/XVDA" })), "/dev/xvda");
    },
  },
  {
    title: "an instance is worked out from its host name",
    async run({ driver }) {
      const seed = { id: "", driver: "vfs", service: "", metadata: "host-a" };
      assert.deepEqual(driver.instanceInspect(seed), {
        instanceID: { id: "host-a", driver: "vfs", service: "" },
        name: "vfsInstance",
        providerName: "",
      });
      for (const metadata of [undefined, {}, ""])
        assert.throws(
          () => driver.instanceInspect({ id: "", driver: "vfs", service: "", metadata }),
          { code: "invalid-argument" },
        );
    },
  },
];
