/**
 * The CSI suite over volumes of a thin pool, on the host that has them. `LIBSTORAGE_LAB_FULL=1` runs all its cases;
 * otherwise those that meet no device are left to the other drivers, which run them on the host in seconds.
 */
import { before, describe } from "node:test";
import { readFileSync, realpathSync } from "node:fs";
import { basename } from "node:path";
import { deviceCases } from "../plugins/csi/cases-device.js";
import type { Devices } from "../plugins/csi/cases-device.js";
import { csiSuite } from "../plugins/csi/suite.js";
import { insideOneMachine } from "./inside.js";
import { GROUP, makeGroup, makePool, POOL } from "./lvm-group.js";
import { sh } from "./shell.js";

const isWhole = process.env["LIBSTORAGE_LAB_FULL"] === "1";
const LIMIT_MS = isWhole ? 2 * 3_600_000 : 1_500_000;
const ELSEWHERE: readonly string[] = [
  "Identity",
  "CreateVolume, DeleteVolume",
  "lists",
  "without snapshots",
];

/** While they are active. */
const devices: Devices = {
  device: (id) => realpathSync(`/dev/${GROUP}/${id}`),
  link(id) {
    const uuid = readFileSync(`/sys/block/${basename(this.device(id))}/dm/uuid`, "utf8").trim();
    return `/dev/disk/by-id/dm-uuid-${uuid}`;
  },
};

insideOneMachine(
  import.meta.url,
  { diskMiB: [200_000], memoryMiB: 2048, limitMs: LIMIT_MS },
  () => {
    describe("LVM", () => {
      before(() => {
        makeGroup("/dev/vdc");
        makePool(POOL, "-L 100G");
        sh("modprobe -a btrfs xfs ext4");
      });
      csiSuite({
        name: "lvm-iscsi, thin",
        driver: "lvm-iscsi",
        service: "thin",
        isBlock: true,
        freezesItself: true,
        noMounts: false,
        noFarNodes: "without an exporter only this host can have these volumes",
        skip: false,
        limits: { suiteMs: LIMIT_MS, callMs: 300_000 },
        leavesOut: (group) =>
          !isWhole &&
          ELSEWHERE.includes(group) &&
          "it meets no device: the other drivers run it, and LIBSTORAGE_LAB_FULL=1",
        configuration: () => `      thin:
        driver: lvm-iscsi
        lvm-iscsi:
          volumeGroup: ${GROUP}
          thinPool: ${POOL}`,
        more: (world) => deviceCases(world, () => devices),
      });
    });
  },
);
