/** What holders see of logical volumes, and what keeps them from being taken away. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Change, StorageDriver, VolumeRecord } from "@libstorage/server";
import { attachmentOf, contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { until } from "./limit.js";
import { configOf, GROUP, openDriver, POOL, SIZE_BYTES } from "./lvm-group.js";
import { sh } from "./shell.js";

const context = contextOf();
const HOST = attachmentOf("lab").instanceID;

async function held(driver: StorageDriver, volume: VolumeRecord): Promise<VolumeRecord> {
  return driver.volumeAttach(volume, attachmentOf("lab", { deviceName: "" }), context);
}

function deviceOf({ attachments }: VolumeRecord): string {
  return attachments[0]?.deviceName ?? "";
}

function release(driver: StorageDriver, volume: VolumeRecord): Promise<VolumeRecord> {
  return driver.volumeDetach(volume, HOST, false, context);
}

/** Random bytes over all of a device. @returns their digest */
function fill(device: string): string {
  sh(`dd if=/dev/urandom of=${device} bs=1M count=8 oflag=direct status=none`);
  return digest(device);
}

function digest(device: string): string {
  return sh(`head -c ${SIZE_BYTES} ${device} | sha256sum | cut -c1-64`);
}

function sharedTests(thinPool: string | undefined, prefix: string): void {
  let driver: StorageDriver;
  before(async () => {
    driver = await openDriver(configOf(thinPool, { prefix }), context);
  });
  after(() => driver.close());

  it("a device is there while somebody holds the volume, under a link of its own (12.10)", async () => {
    const made = await driver.volumeCreate(volumeOf(driver, 0), context);
    sh(`test ! -e /dev/${GROUP}/${made.id}`);
    const volume = await held(driver, made);
    assert.match(deviceOf(volume), /^\/dev\/disk\/by-id\/dm-uuid-LVM-\w{64}$/);
    assert.equal(sh(`readlink -f ${deviceOf(volume)}`), sh(`readlink -f /dev/${GROUP}/${made.id}`));
    assert.equal(
      driver.attachToken(attachmentOf("lab", { deviceName: deviceOf(volume) })),
      deviceOf(volume).slice("/dev/disk/by-id/".length).toLowerCase(),
    );
    await release(driver, volume);
    sh(`test ! -e ${deviceOf(volume)}`);
    await driver.volumeRemove(made.id, context);
  });

  it("copies, snapshots and what is made of them hold the data, and are apart from it (12.10)", async () => {
    const source = await held(driver, await driver.volumeCreate(volumeOf(driver, 1), context));
    const then = fill(deviceOf(source));
    const snapshot = await driver.snapshots?.snapshotCreate(
      source,
      snapshotOf(driver, 1, source),
      context,
    );
    const copy = await driver.volumeCopy?.(source, volumeOf(driver, 2), context);
    const later = fill(deviceOf(source));
    assert.ok(copy !== undefined && snapshot !== undefined);
    const second = await driver.snapshots?.snapshotCopy?.(
      snapshot,
      snapshotOf(driver, 2, source),
      context,
    );
    assert.ok(second !== undefined);
    const made = await driver.snapshots?.volumeCreateFromSnapshot(
      second,
      volumeOf(driver, 3),
      context,
    );
    assert.ok(made !== undefined);
    for (const one of [copy, made]) {
      const mine = await held(driver, one);
      assert.equal(digest(deviceOf(mine)), then, one.name);
      fill(deviceOf(mine));
      await release(driver, mine);
    }
    assert.equal(digest(deviceOf(source)), later);
    await release(driver, source);
    for (const one of [source, copy, made]) await driver.volumeRemove(one.id, context);
    for (const one of [snapshot, second]) await driver.snapshots?.snapshotRemove(one.id, context);
    assert.equal(sh(`lvs --noheadings -o lv_name ${GROUP} | grep -c ${prefix} || true`), "0");
  });

  it("what uses a volume is named when it cannot be taken away", async () => {
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 4), context));
    const device = deviceOf(volume);
    sh(`mkfs.ext4 -q ${device}; mkdir -p "/mnt/a b"; mount ${device} "/mnt/a b"`);
    const mounted = { code: "failed-precondition", message: /mounted at \/mnt\/a b/ };
    await assert.rejects(release(driver, volume), mounted);
    await assert.rejects(driver.volumeRemove(volume.id, context), mounted);
    sh(`umount "/mnt/a b"; dmsetup create upon --table "0 2048 linear ${device} 0"`);
    const holder = { code: "failed-precondition", message: /dmsetup remove upon/ };
    await assert.rejects(driver.volumeRemove(volume.id, context), holder);
    sh("dmsetup remove upon");
    const pid = sh(`sleep 600 < ${device} >/dev/null 2>&1 & echo $!`);
    const opener = { code: "failed-precondition", message: new RegExp(`${pid} \\(sleep\\)`) };
    await assert.rejects(driver.volumeRemove(volume.id, context), opener);
    sh(`kill ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.1; done`);
    await release(driver, volume);
    await driver.volumeRemove(volume.id, context);
  });

  it("a device that was left behind is named", async () => {
    const { id } = await driver.volumeCreate(volumeOf(driver, 5), context);
    const node = `${GROUP}-${id.replaceAll("-", "--")}`;
    sh(`dmsetup create ${node} --table "0 2048 zero"`);
    const volume = await driver.volumeInspect(id, context);
    assert.ok(volume !== undefined);
    await assert.rejects(held(driver, volume), { message: new RegExp(`dmsetup remove .*${node}`) });
    sh(`dmsetup remove ${node}`);
    await release(driver, await held(driver, volume));
    await driver.volumeRemove(id, context);
  });

  it("what is held is active again after a boot", async () => {
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 6), context));
    await driver.close();
    sh(`vgchange -qq -an ${GROUP}`);
    driver = await openDriver(configOf(thinPool, { prefix }), context);
    assert.equal(sh(`blockdev --getsize64 ${deviceOf(volume)}`), String(SIZE_BYTES));
    // An inactive pool does not tell its fill.
    if (thinPool !== undefined)
      assert.equal(sh(`lvs --noheadings -o lv_active ${GROUP}/${thinPool}`).trim(), "active");
    const [listed] = (await driver.list(context)).volumes;
    assert.ok(listed !== undefined);
    await release(driver, listed);
    await driver.volumeRemove(volume.id, context);
  });
}

function thinTests(): void {
  it("a thin volume grows while it is held and has snapshots", async () => {
    const driver = await openDriver(configOf(POOL, { prefix: "grow-" }), context);
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    await driver.snapshots?.snapshotCreate(volume, snapshotOf(driver, 0, volume), context);
    await driver.volumeExpand?.(volume, 4 * SIZE_BYTES, context);
    assert.equal(sh(`blockdev --getsize64 ${deviceOf(volume)}`), String(4 * SIZE_BYTES));
    await release(driver, volume);
    await driver.volumeRemove(volume.id, context);
    await driver.snapshots?.snapshotRemove(snapshotOf(driver, 0, volume).id, context);
    await driver.close();
  });
}

function thickTests(): void {
  it("a new volume shows nothing at its start of what was on the disk before", async () => {
    const driver = await openDriver(configOf(undefined, { prefix: "new-" }), context);
    const old = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    sh(`mkfs.ext4 -q ${deviceOf(old)}`);
    await release(driver, old);
    await driver.volumeRemove(old.id, context);
    const fresh = await held(driver, await driver.volumeCreate(volumeOf(driver, 1), context));
    assert.equal(sh(`blkid -p ${deviceOf(fresh)} || true`), "");
    assert.equal(sh(`head -c 4194304 ${deviceOf(fresh)} | tr -d '\\0' | wc -c`), "0");
    // Wiped once: what its holder wrote stays.
    const written = fill(deviceOf(fresh));
    const again = await held(driver, await release(driver, fresh));
    assert.equal(digest(deviceOf(again)), written);
    await release(driver, again);
    await driver.volumeRemove(fresh.id, context);
    await driver.close();
  });

  it("zeros are written over what is removed, where that is asked for", async () => {
    const driver = await openDriver(
      configOf(undefined, { prefix: "zero-", wipe: "zero" }),
      context,
    );
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    fill(deviceOf(volume));
    const place = sh(`dmsetup table ${deviceOf(volume)} | cut -d' ' -f4,5`);
    const [disk, sector] = place.split(" ");
    await release(driver, volume);
    await driver.volumeRemove(volume.id, context);
    assert.equal(disk, sh("lsblk -ndo MAJ:MIN /dev/vdc | tr -d ' '"));
    const read = `dd if=/dev/vdc bs=512 skip=${sector} count=${SIZE_BYTES / 512} status=none`;
    assert.equal(sh(`${read} iflag=direct | tr -d '\\0' | wc -c`), "0");
    await driver.close();
  });

  it("zeros are written over what a snapshot keeps, and its volume is left alone", async () => {
    const driver = await openDriver(
      configOf(undefined, { prefix: "kept-", wipe: "zero" }),
      context,
    );
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    fill(deviceOf(volume));
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    const later = fill(deviceOf(volume));
    const table = sh(`dmsetup table ${GROUP}-kept--000--000-cow`).split("\n");
    const parts = table
      .map((line) => line.split(" "))
      .map(([, length, , , start]) => {
        const range = `skip=${start} count=${length}`;
        return `dd if=/dev/vdc bs=512 ${range} status=none iflag=direct | tr -d '\\0' | wc -c`;
      });
    const bytesLeft = (): number => parts.reduce((sum, read) => sum + Number(sh(read)), 0);
    assert.ok(bytesLeft() > SIZE_BYTES / 2, "the space is where it is looked for");
    await driver.snapshots?.snapshotRemove(snapshot.id, context);
    assert.equal(bytesLeft(), 0);
    assert.equal(digest(deviceOf(volume)), later, "the volume goes on meanwhile");
    await release(driver, volume);
    await driver.volumeRemove(volume.id, context);
    assert.equal(sh(`lvs --noheadings -o lv_name ${GROUP} | grep -c kept- || true`), "0");
    await driver.close();
  });

  it("a snapshot made by hand keeps its volume from being removed, and is named", async () => {
    const driver = await openDriver(configOf(undefined, { prefix: "hands-" }), context);
    const { id } = await driver.volumeCreate(volumeOf(driver, 0), context);
    sh(`lvcreate -qq -y -s -L 8M -n backup.by+hand ${GROUP}/${id}`);
    await assert.rejects(driver.volumeRemove(id, context), {
      code: "failed-precondition",
      message: /lvremove vg0\/backup\.by\+hand/,
    });
    sh(`lvs ${GROUP}/backup.by+hand ${GROUP}/${id}; lvremove -qq -y ${GROUP}/backup.by+hand`);
    await driver.volumeRemove(id, context);
    assert.equal(sh(`lvs --noheadings -o lv_name ${GROUP} | grep -c hands- || true`), "0");
    await driver.close();
  });

  it("a volume with snapshots grows only while nobody holds it", async () => {
    const driver = await openDriver(configOf(undefined, { prefix: "cow-" }), context);
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    await assert.rejects(async () => driver.volumeExpand?.(volume, 4 * SIZE_BYTES, context), {
      code: "failed-precondition",
      message: /has snapshots and is in use/,
    });
    const free = await release(driver, volume);
    const grown = await driver.volumeExpand?.(free, 4 * SIZE_BYTES, context);
    assert.equal(grown?.sizeBytes, 4 * SIZE_BYTES);
    await driver.volumeRemove(volume.id, context);
    await driver.snapshots?.snapshotRemove(snapshot.id, context);
    await driver.close();
  });

  it("a snapshot does not overflow by what its volume has grown by", async () => {
    const driver = await openDriver(configOf(undefined, { prefix: "wide-" }), context);
    const volume = await held(driver, await driver.volumeCreate(volumeOf(driver, 0), context));
    const then = fill(deviceOf(volume));
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    const free = await release(driver, volume);
    const grown = await driver.volumeExpand?.(free, 8 * SIZE_BYTES, context);
    assert.ok(grown !== undefined);
    const wide = await held(driver, grown);
    // All of it, eight times what the snapshot has room for.
    sh(`dd if=/dev/urandom of=${deviceOf(wide)} bs=1M count=64 oflag=direct status=none`);
    assert.equal((await driver.snapshotInspect(snapshot.id, context))?.broken, undefined);
    assert.equal(
      sh(`lvs --noheadings --units b --nosuffix -o origin_size ${GROUP}/${snapshot.id}`).trim(),
      String(SIZE_BYTES),
    );
    assert.equal(digest(`/dev/${GROUP}/${snapshot.id}`), then);
    await release(driver, wide);
    await driver.volumeRemove(volume.id, context);
    await driver.snapshots?.snapshotRemove(snapshot.id, context);
    await driver.close();
  });

  it("a snapshot that overflows is noticed", async () => {
    const config = { prefix: "over-", snapshotPercent: 50, watchSeconds: 1 };
    const driver = await openDriver(configOf(undefined, config), context);
    const wanted = volumeOf(driver, 0, { sizeBytes: 4 * SIZE_BYTES });
    const volume = await held(driver, await driver.volumeCreate(wanted, context));
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    await driver.list(context);
    const seen: Change[] = [];
    const stop = driver.watch?.((change) => seen.push(change));
    sh(`dd if=/dev/urandom of=${deviceOf(volume)} bs=1M count=32 oflag=direct status=none`);
    const isSeen = (): boolean =>
      seen.some(({ snapshotIDs }) => snapshotIDs?.includes(snapshot.id) === true);
    await until("it is noticed", async () => isSeen());
    assert.notEqual((await driver.snapshotInspect(snapshot.id, context))?.broken, undefined);
    stop?.();
    await driver.snapshots?.snapshotRemove(snapshot.id, context);
    await driver.volumeRemove((await release(driver, volume)).id, context);
    await driver.close();
  });

  it("what is too large is refused, and what is free is said", async () => {
    const driver = await openDriver(configOf(undefined, { prefix: "large-" }), context);
    const large = volumeOf(driver, 0, { sizeBytes: 900 * 1024 ** 3 });
    await assert.rejects(driver.volumeCreate(large, context), {
      code: "resource-exhausted",
      message: /has .* GiB free, and it takes 900 GiB/,
    });
    assert.deepEqual((await driver.list(context)).volumes, []);
    await driver.close();
  });
}

export function hostTests(): void {
  describe("thin volumes", () => {
    sharedTests(POOL, "thin-");
    thinTests();
  });
  describe("thick volumes", () => {
    sharedTests(undefined, "thick-");
    thickTests();
  });
}
