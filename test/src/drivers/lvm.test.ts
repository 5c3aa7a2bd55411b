/**
 * The whole driver contract, with every fault, over a volume group in memory. On a real one, with a real kernel, the
 * lab runs a sample of it (`test/src/lab/lvm.lab.ts`).
 */
import { testDriver } from "../conformance.js";
import type { Harness } from "../conformance/fixture.js";
import { openOver } from "./lvm-fake.js";
import { VolumeGroupModel } from "./lvm-model.js";

function harnessOf(thinPool: string | undefined): Harness {
  const isRoot = process.getuid?.() === 0;
  return {
    skip: isRoot ? false : "only root may lock a part of a volume group, in /run/lock",
    isDurable: true,
    hasFolders: "volumes are block devices",
    hasDoors: true,
    async place() {
      const model = new VolumeGroupModel("vg0", "pool");
      const config = {
        volumeGroup: "vg0",
        prefix: "lvm-",
        wipe: "none",
        defaultSize: "8M",
        snapshotPercent: 100,
        watchSeconds: 3600,
        pool: { warnAt: 80, extendAt: 85, refuseAt: 92, suspendAt: 97, checkSeconds: 600 },
        ...(thinPool !== undefined && { thinPool }),
      };
      return {
        open: (context) => openOver(model, config, context),
        leftovers: async () => model.names().filter((name) => name !== "pool"),
        close: async () => {},
      };
    },
    differs: {
      "a size of 0 stays 0": "a block device has a size",
      "the largest size is kept to the byte": "LVM refuses what it cannot address",
      "the device name that was asked for is kept": "a logical volume has one safe name of its own",
    },
  };
}

testDriver("lvm-iscsi, thin, in memory", harnessOf("pool"));
testDriver("lvm-iscsi, thick, in memory", harnessOf(undefined));
