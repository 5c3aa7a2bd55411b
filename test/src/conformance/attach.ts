/** Holders: let in, kept apart, cut off. */
import assert from "node:assert/strict";
import { attachmentOf, contextOf, eachOf } from "./fixture.js";
import type { Case } from "./fixture.js";

const INSTANCE = {
  id: "host-a",
  driver: "VFS",
  service: "s1",
  fields: { region: "east" },
  metadata: { a: [1, null, "x"] },
};

export const ATTACH_CASES: readonly Case[] = [
  {
    title: "attach lets a holder in",
    async run(fixture) {
      const volume = await fixture.create(0);
      const held = await fixture.attach(volume, "host-a");
      assert.equal(held.attachments.length, 1);
      assert.equal(held.attachments[0]?.instanceID.id, "host-a");
      assert.equal(held.attachments[0]?.status, "attached");
      assert.deepEqual(await fixture.inspect(volume.id), held);
    },
  },
  {
    title: "the instance ID is kept as it was sent",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "", { instanceID: INSTANCE });
      assert.deepEqual(held.attachments[0]?.instanceID, INSTANCE);
      const listed = (await fixture.list()).volumes[0];
      assert.deepEqual(listed?.attachments[0]?.instanceID, INSTANCE);
    },
  },
  {
    title: "the device name that was asked for is kept",
    async run(fixture) {
      const volume = await fixture.create(0);
      const held = await fixture.attach(volume, "host-a", { deviceName: "/dev/xvdq" });
      assert.equal(held.attachments[0]?.deviceName, "/dev/xvdq");
    },
  },
  {
    title: "attach without a device name is fine",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a", { deviceName: "" });
      assert.equal(held.attachments.length, 1);
      assert.equal(typeof held.attachments[0]?.deviceName, "string");
    },
  },
  {
    title: "attaching once more changes nothing",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      assert.deepEqual(await fixture.attach(held, "host-a"), held);
      assert.deepEqual(await fixture.inspect(held.id), held);
    },
  },
  {
    title: "instance IDs compare without case",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      assert.equal((await fixture.attach(held, "HOST-A")).attachments.length, 1);
      assert.deepEqual((await fixture.detach(held, "Host-A")).attachments, []);
    },
  },
  {
    title: "a volume can have two holders: the core decides whether it may",
    async run(fixture) {
      const one = await fixture.attach(await fixture.create(0), "host-a");
      const two = await fixture.attach(one, "host-b", { epoch: 2 });
      assert.deepEqual(
        two.attachments.map(({ instanceID }) => instanceID.id),
        ["host-a", "host-b"],
      );
      assert.deepEqual(await fixture.inspect(one.id), two);
    },
  },
  {
    title: "epoch and time of a holder are kept",
    async run(fixture) {
      const volume = await fixture.create(0);
      const held = await fixture.attach(volume, "host-a", { epoch: 7, since: 1234 });
      assert.equal(held.epoch, 7);
      const [attachment] = (await fixture.inspect(volume.id))?.attachments ?? [];
      assert.equal(attachment?.epoch, 7);
      assert.equal(attachment?.since, 1234);
    },
  },
  {
    title: "the epoch never falls",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a", { epoch: 7 });
      const free = await fixture.detach(held, "host-a");
      assert.equal(free.epoch, 7);
      assert.equal((await fixture.attach(free, "host-b", { epoch: 3 })).epoch, 7);
      assert.equal((await fixture.inspect(held.id))?.epoch, 7);
    },
  },
  {
    title: "mount point and fields of an attachment are kept",
    async run(fixture) {
      const more = { mountPoint: "/mnt/a b", fields: { lun: "3" } };
      const held = await fixture.attach(await fixture.create(0), "host-a", more);
      const [attachment] = (await fixture.inspect(held.id))?.attachments ?? [];
      assert.equal(attachment?.mountPoint, more.mountPoint);
      // A driver may add fields of its own, such as where the image is.
      assert.deepEqual({ ...attachment?.fields, ...more.fields }, attachment?.fields);
    },
  },
  {
    title: "attaching an unknown volume is refused and makes none",
    async run(fixture) {
      await assert.rejects(fixture.attach(fixture.volume(3), "host-a"), { code: "not-found" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "an update keeps the holders",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      await fixture.driver.volumeUpdate({ ...held, name: "new" }, contextOf());
      assert.deepEqual((await fixture.inspect(held.id))?.attachments, held.attachments);
    },
  },
  {
    title: "the attach token is in lower case",
    async run({ driver }) {
      for (const deviceName of ["/dev/xvdA", "/dev/XVDB", "", "/somewhere/Else"]) {
        const token = driver.attachToken(attachmentOf("host-a", { deviceName }));
        assert.equal(token, token.toLowerCase());
      }
    },
  },
  {
    title: "sixteen volumes attached at once have each their own holder",
    async run(fixture) {
      await eachOf(16, async (number) =>
        fixture.attach(await fixture.create(number), `host-${number}`),
      );
      for (const { name, attachments } of (await fixture.list()).volumes)
        assert.equal(attachments[0]?.instanceID.id, name.replace("volume ", "host-"));
    },
  },
  {
    title: "detach takes out that holder only",
    async run(fixture) {
      const one = await fixture.attach(await fixture.create(0), "host-a");
      const two = await fixture.attach(one, "host-b");
      const left = await fixture.detach(two, "host-a");
      assert.deepEqual(
        left.attachments.map(({ instanceID }) => instanceID.id),
        ["host-b"],
      );
      assert.deepEqual(await fixture.inspect(one.id), left);
    },
  },
  {
    title: "detaching once more is fine",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      const free = await fixture.detach(held, "host-a");
      assert.deepEqual(await fixture.detach(free, "host-a"), free);
    },
  },
  {
    title: "detaching one who does not hold is fine",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      assert.deepEqual(await fixture.detach(held, "host-z"), held);
    },
  },
  {
    title: "detach with force cuts a holder that uses nothing",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      assert.deepEqual((await fixture.detach(held, "host-a", true)).attachments, []);
    },
  },
  {
    title: "detaching an unknown volume is refused",
    async run(fixture) {
      await assert.rejects(fixture.detach(fixture.volume(3), "host-a"), { code: "not-found" });
      await assert.rejects(fixture.detach(fixture.volume(3), "host-a", true), {
        code: "not-found",
      });
    },
  },
  {
    title: "after a detach another may hold",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      const next = await fixture.attach(await fixture.detach(held, "host-a"), "host-b");
      assert.equal(next.attachments.length, 1);
      assert.equal(next.attachments[0]?.instanceID.id, "host-b");
    },
  },
  {
    title: "an instance ID that is complete stays as it is",
    async run({ driver }) {
      const { instanceID } = driver.instanceInspect({ id: "Host-1", driver: "d", service: "" });
      assert.equal(instanceID.id, "Host-1");
    },
  },
];
