/** Volumes from snapshots and from volumes, and growing. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { World } from "./world.js";
import { GIB, unique } from "./world.js";

export function sourceCases(world: () => World): void {
  const fromSnapshot = (snapshotId: string): object => ({ snapshot: { snapshotId } });
  const fromVolume = (volumeId: string): object => ({ volume: { volumeId } });
  const can = (name: string): Promise<boolean> => world().controllerCan(name);
  const request = (more: object): object => ({
    name: unique("pvc"),
    volumeCapabilities: [world().cap()],
    ...more,
  });

  it("a volume from a snapshot says so, and has the snapshot's size", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const { snapshotId } = await world().snapshot(source.volumeId);
    const volume = await world().create({
      volumeContentSource: fromSnapshot(snapshotId),
      capacityRange: undefined,
    });
    assert.equal(volume.contentSource.snapshot.snapshotId, snapshotId);
    assert.equal(volume.capacityBytes, 2 * GIB);
  });

  it("a volume from a snapshot may be larger", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create();
    const { snapshotId } = await world().snapshot(source.volumeId);
    const capacityRange = { requiredBytes: 3 * GIB };
    const volume = await world().create({
      volumeContentSource: fromSnapshot(snapshotId),
      capacityRange,
    });
    assert.equal(volume.capacityBytes, 3 * GIB);
  });

  it("a clone is as its source: what its class wants otherwise is INVALID_ARGUMENT", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service copies no volumes");
    const source = await world().create({ parameters: { zone: "z1" } });
    const before = await world().volumeIDs();
    const volumeContentSource = fromVolume(source.volumeId);
    for (const [name, value] of [
      ["type", "another"],
      ["iops", "77"],
      ["zone", "z2"],
      ["encrypted", "true"],
    ] as const) {
      const parameters = { [name]: value };
      const wanted = request({ volumeContentSource, parameters });
      const text = await world().fails("INVALID_ARGUMENT", "CreateVolume", wanted);
      assert.ok(text.includes(source.volumeId) && text.includes(name), text);
    }
    assert.deepEqual(await world().volumeIDs(), before, "nothing was made");
    const parameters = { zone: "z1", encrypted: "false" };
    const wanted = { name: unique("clone"), volumeContentSource, parameters };
    const clone = await world().create(wanted);
    assert.deepEqual(await world().create(wanted), clone);
  });

  it("a volume from a snapshot that may not be as large as it is OUT_OF_RANGE", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const { snapshotId } = await world().snapshot(source.volumeId);
    const capacityRange = { requiredBytes: GIB, limitBytes: GIB };
    await world().fails(
      "OUT_OF_RANGE",
      "CreateVolume",
      request({ volumeContentSource: fromSnapshot(snapshotId), capacityRange }),
    );
  });

  it("a volume from a snapshot that is not there is NOT_FOUND", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    for (const id of ["non-existing-snapshot-id", "..", "a/b"])
      await world().fails(
        "NOT_FOUND",
        "CreateVolume",
        request({ volumeContentSource: fromSnapshot(id) }),
      );
  });

  it("a volume from a snapshot is found again after the snapshot is gone", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create();
    const { snapshotId } = await world().snapshot(source.volumeId);
    const name = unique("restored");
    const wanted = { name, volumeContentSource: fromSnapshot(snapshotId) };
    const first = await world().create(wanted);
    await world().call("DeleteSnapshot", { snapshotId });
    assert.deepEqual(await world().create(wanted), first);
  });

  it("a volume from a snapshot twice with another source is ALREADY_EXISTS", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create();
    const { snapshotId } = await world().snapshot(source.volumeId);
    const other = await world().snapshot(source.volumeId);
    const name = unique("restored");
    await world().create({ name, volumeContentSource: fromSnapshot(snapshotId) });
    await world().fails(
      "ALREADY_EXISTS",
      "CreateVolume",
      request({ name, volumeContentSource: fromSnapshot(other.snapshotId) }),
    );
    await world().fails("ALREADY_EXISTS", "CreateVolume", request({ name }));
  });

  it("a snapshot outlives its volume, and volumes can be made from it", async (t) => {
    if (!(await can("CREATE_DELETE_SNAPSHOT"))) return t.skip("the service has no snapshots");
    const source = await world().create();
    const { snapshotId } = await world().snapshot(source.volumeId);
    await world().call("DeleteVolume", { volumeId: source.volumeId });
    assert.ok((await world().snapshotIDs()).includes(snapshotId));
    await world().create({ volumeContentSource: fromSnapshot(snapshotId) });
  });

  it("a clone says so, and is as large as its source", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    const source = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const clone = await world().create({
      volumeContentSource: fromVolume(source.volumeId),
      capacityRange: undefined,
    });
    assert.equal(clone.contentSource.volume.volumeId, source.volumeId);
    assert.equal(clone.capacityBytes, 2 * GIB);
    assert.notEqual(clone.volumeId, source.volumeId);
  });

  it("a clone may be larger", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    const source = await world().create();
    const clone = await world().create({
      volumeContentSource: fromVolume(source.volumeId),
      capacityRange: { requiredBytes: 4 * GIB },
    });
    assert.equal(clone.capacityBytes, 4 * GIB);
  });

  it("a clone that may not be as large as its source is OUT_OF_RANGE", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    const source = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const capacityRange = { requiredBytes: GIB, limitBytes: GIB };
    await world().fails(
      "OUT_OF_RANGE",
      "CreateVolume",
      request({ volumeContentSource: fromVolume(source.volumeId), capacityRange }),
    );
  });

  it("a clone of a volume that is not there is NOT_FOUND", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    await world().fails(
      "NOT_FOUND",
      "CreateVolume",
      request({ volumeContentSource: fromVolume("fake-vol-id") }),
    );
  });

  it("a clone twice is one volume, and not its source", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    const name = unique("source");
    const source = await world().create({ name });
    const wanted = { name: unique("clone"), volumeContentSource: fromVolume(source.volumeId) };
    const clone = await world().create(wanted);
    assert.deepEqual(await world().create(wanted), clone);
    assert.equal((await world().create({ name })).volumeId, source.volumeId);
  });

  it("a clone of a clone names its own source", async (t) => {
    if (!(await can("CLONE_VOLUME"))) return t.skip("the service does not copy volumes");
    const first = await world().create();
    const second = await world().create({ volumeContentSource: fromVolume(first.volumeId) });
    const third = await world().create({ volumeContentSource: fromVolume(second.volumeId) });
    const { volume } = await world().call("ControllerGetVolume", { volumeId: third.volumeId });
    assert.equal(volume.contentSource.volume.volumeId, second.volumeId);
  });

  // ---- ControllerExpandVolume

  it("ControllerExpandVolume makes a volume larger, to the byte that was asked", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    const { volumeId } = await world().create();
    const reply = await world().call("ControllerExpandVolume", {
      volumeId,
      capacityRange: { requiredBytes: 2 * GIB },
      volumeCapability: world().cap(),
    });
    assert.equal(reply.capacityBytes, 2 * GIB);
    assert.equal(reply.nodeExpansionRequired, world().kind.isBlock);
    const { volume } = await world().call("ControllerGetVolume", { volumeId });
    assert.equal(volume.capacityBytes, 2 * GIB);
  });

  it("ControllerExpandVolume again, or to less, changes nothing", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    const { volumeId } = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    for (const requiredBytes of [2 * GIB, GIB, 1]) {
      const reply = await world().call("ControllerExpandVolume", {
        volumeId,
        capacityRange: { requiredBytes },
      });
      assert.equal(reply.capacityBytes, 2 * GIB);
    }
  });

  it("ControllerExpandVolume below the present size is OUT_OF_RANGE", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    const { volumeId } = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const capacityRange = { requiredBytes: GIB, limitBytes: GIB };
    await world().fails("OUT_OF_RANGE", "ControllerExpandVolume", { volumeId, capacityRange });
  });

  it("ControllerExpandVolume without a volume or a size is INVALID_ARGUMENT", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    const { volumeId } = await world().create();
    await world().fails("INVALID_ARGUMENT", "ControllerExpandVolume", {
      volumeId: "",
      capacityRange: { requiredBytes: GIB },
    });
    await world().fails("INVALID_ARGUMENT", "ControllerExpandVolume", { volumeId: "" });
    await world().fails("INVALID_ARGUMENT", "ControllerExpandVolume", { volumeId });
    await world().fails("INVALID_ARGUMENT", "ControllerExpandVolume", {
      volumeId,
      capacityRange: {},
    });
    await world().fails("INVALID_ARGUMENT", "ControllerExpandVolume", {
      volumeId,
      capacityRange: { requiredBytes: -5 },
    });
  });

  it("ControllerExpandVolume of what is not there is NOT_FOUND", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    await world().fails("NOT_FOUND", "ControllerExpandVolume", {
      volumeId: "fake-vol-id",
      capacityRange: { requiredBytes: GIB },
    });
  });

  it("ControllerExpandVolume beyond all sizes is OUT_OF_RANGE", async (t) => {
    if (!(await can("EXPAND_VOLUME"))) return t.skip("the service does not expand volumes");
    const { volumeId } = await world().create();
    await world().fails("OUT_OF_RANGE", "ControllerExpandVolume", {
      volumeId,
      capacityRange: { requiredBytes: 2 ** 62 },
    });
  });
}
