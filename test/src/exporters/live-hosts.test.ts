/** Volumes that grow and get snapshots while another host has them, or a daemon with a user of its own. */
import assert from "node:assert/strict";
import { chmodSync, statSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { makeScratch } from "../faults/folders.js";
import { DoorHost, GIB, SERVICE, through } from "./door-host.js";
import {
  CALLER,
  Writer,
  blocksOfVolume,
  imageOf,
  liveMissing as skip,
  nbdTarget,
} from "./live-client.js";
import { run } from "./nbd-client.js";

it("a daemon with a user of its own goes on in a new layer", { skip }, async () => {
  const scratch = makeScratch("lu");
  chmodSync(scratch.path, 0o711);
  const host = await DoorHost.open(scratch.path, { daemon: { daemonUser: "nobody" } });
  try {
    const service = host.storage.service(SERVICE);
    const volumeID = await host.volume("qcow2");
    const door = await host.add({ volumeID, type: "nbd", writable: true });
    await through(door, "write -P 1 0 64k", "flush");
    await service.volumeSnapshot(volumeID, { name: "s", fields: {} }, CALLER);
    await through(door, "read -P 1 0 64k", "write -P 2 0 64k", "flush");
    await service.volumeExpand(volumeID, 2 * GIB, CALLER);
    await through(door, "read -P 2 0 64k", "write -P 3 1500M 64k", "flush");
    assert.notEqual(statSync(imageOf(service, volumeID)).uid, 0);
    await host.remove(door.id ?? "", "hard");
  } finally {
    await host.close();
    await scratch.remove();
  }
});

describe("live, for another host", { skip }, () => {
  const scratch = makeScratch("lh");
  let host: DoorHost;
  before(async () => {
    host = await DoorHost.open(scratch.path, { exports: [], hasHosts: true });
  });
  after(async () => {
    await host.removeVolumes();
    await host.close();
    await scratch.remove();
  });

  for (const format of ["raw", "qcow2"] as const)
    it(`a ${format} volume grows and is snapshotted under a client that waits and comes again`, async () => {
      const service = host.storage.service(SERVICE);
      const volumeID = await host.volume(format);
      const { address = "", export: name } = (await host.attachToHost(volumeID)).fields;
      const [server, port] = address.split(":");
      const place = `server.type=inet,server.host=${server},server.port=${port},export=${name}`;
      const writer = new Writer(nbdTarget(place));
      await writer.goesOn();
      await service.volumeExpand(volumeID, 2 * GIB, CALLER);
      await writer.goesOn();
      const least = writer.flushed;
      const snapshot =
        format === "raw"
          ? undefined
          : await service.volumeSnapshot(volumeID, { name: "s", fields: {} }, CALLER);
      await writer.goesOn();
      await service.volumeExpand(volumeID, 3 * GIB, CALLER);
      await writer.goesOn();
      assert.equal(Number(await run("nbdinfo", "--size", `nbd://${address}/${name}`)), 3 * GIB);
      await writer.end();
      await host.detachFromHost(volumeID);
      assert.equal(await blocksOfVolume(service, volumeID, scratch.path), writer.flushed);
      if (snapshot === undefined) return;
      const wanted = { name: "from", fields: {} };
      const made = await service.volumeCreateFromSnapshot(snapshot.id, wanted, CALLER);
      assert.ok((await blocksOfVolume(service, made.id, scratch.path)) >= least);
    });
});
