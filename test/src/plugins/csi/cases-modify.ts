/** ControllerModifyVolume: what a service can change of a volume, by parameters that can change. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { World } from "./world.js";
import { unique } from "./world.js";

export function modifyCases(world: () => World): void {
  const modify = (volumeId: string, mutableParameters: Record<string, string>): Promise<unknown> =>
    world().call("ControllerModifyVolume", { volumeId, mutableParameters });

  it("MODIFY_VOLUME is advertised", async () => {
    assert.ok(await world().controllerCan("MODIFY_VOLUME"));
  });

  it("ControllerModifyVolume without a volume is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "ControllerModifyVolume", {});
  });

  it("ControllerModifyVolume of an unknown volume is NOT_FOUND", async () => {
    await world().fails("NOT_FOUND", "ControllerModifyVolume", { volumeId: "nobody-000" });
  });

  it("ControllerModifyVolume with what is not known, or cannot change, is INVALID_ARGUMENT", async () => {
    const { volumeId } = await world().create();
    for (const mutableParameters of [
      { colour: "red" },
      { iops: "5" },
      { zone: "z1" },
      { encrypted: "true" },
      { "option.csi.name": "x" },
      { "option.shareable": "true" },
      { "option.owner": "me", colour: "red" },
    ]) {
      const request = { volumeId, mutableParameters };
      const text = await world().fails("INVALID_ARGUMENT", "ControllerModifyVolume", request);
      assert.match(text, /^\w+: mutable parameter|mutable parameter/);
    }
  });

  it("ControllerModifyVolume twice is as once, and with nothing changes nothing", async () => {
    const { volumeId, capacityBytes } = await world().create();
    await modify(volumeId, { "option.owner": "me", "option.Tier": "gold" });
    await modify(volumeId, { "option.owner": "me", "option.Tier": "gold" });
    await modify(volumeId, {});
    const { volume } = await world().call("ControllerGetVolume", { volumeId });
    assert.equal(volume.capacityBytes, capacityBytes);
  });

  it("a volume that was changed is still that of its name", async () => {
    const request = {
      name: unique("pvc"),
      volumeCapabilities: [world().cap()],
      mutableParameters: { "option.owner": "me" },
    };
    const { volumeId } = await world().create(request);
    await modify(volumeId, { "option.owner": "you" });
    const { volume } = await world().call("CreateVolume", request);
    assert.equal(volume.volumeId, volumeId);
  });

  it("ValidateVolumeCapabilities confirms parameters that can change", async () => {
    const { volumeId } = await world().create();
    const { confirmed } = await world().call("ValidateVolumeCapabilities", {
      volumeId,
      volumeCapabilities: [world().cap()],
      mutableParameters: { "option.owner": "me" },
    });
    assert.deepEqual(confirmed.mutableParameters, { "option.owner": "me" });
  });
}
