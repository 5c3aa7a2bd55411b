/** Whether a device is zero wherever something would leave a mark, on a loop device. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  mkdtempSync,
  openSync,
  closeSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { isZeroWhereMarked } from "@libstorage/client/host";
import { scratchParent } from "../faults/folders.js";
import { loopServiceMissing } from "../plugins/csi/loop-service.js";

const MIB = 1024 ** 2;
const SIZE = 96 * MIB;

describe(
  "a device that is zero wherever something leaves a mark",
  { skip: loopServiceMissing() },
  () => {
    const limit = { signal: new AbortController().signal, timeoutMs: 30_000 };
    let folder: string;
    let device: string;

    before(() => {
      folder = mkdtempSync(join(scratchParent(), "zeros-"));
      const image = join(folder, "image");
      writeFileSync(image, "");
      truncateSync(image, SIZE);
      const made = spawnSync("losetup", ["--find", "--show", image], { encoding: "utf8" });
      assert.equal(made.status, 0, made.stderr);
      device = made.stdout.trim();
    });
    after(() => {
      spawnSync("losetup", ["--detach", device]);
      rmSync(folder, { recursive: true, force: true });
    });

    const put = (at: number, byte: number): void => {
      const file = openSync(device, "r+");
      writeSync(file, Buffer.from([byte]), 0, 1, at);
      closeSync(file);
    };

    it("is one, until there is a byte at one of those places", async () => {
      assert.equal(await isZeroWhereMarked(device, limit), true);
      const places = [0, 1080, 65_600, MIB - 1, MIB + 100, 2 * MIB, 4 * MIB + 4, 64 * MIB + 64];
      // From its end: RAID's, GPT's, ZFS's and others'.
      const fromEnd = [1, 512, 4096, 65_536, 131_072, 262_144, 507_392, 1_580_544];
      for (const at of [...places, ...fromEnd.map((back) => SIZE - back)]) {
        put(at, 1);
        assert.equal(await isZeroWhereMarked(device, limit), false, `a byte at ${at}`);
        put(at, 0);
        assert.equal(await isZeroWhereMarked(device, limit), true, `no byte at ${at}`);
      }
    });

    it("is never told of what is no device, too small, or not read in time", async () => {
      assert.equal(await isZeroWhereMarked(join(folder, "image"), limit), undefined);
      assert.equal(await isZeroWhereMarked("/dev/null", limit), undefined);
      assert.equal(await isZeroWhereMarked(join(folder, "none"), limit), undefined);
      const ended = { signal: AbortSignal.abort(), timeoutMs: 30_000 };
      assert.equal(await isZeroWhereMarked(device, ended), undefined);
    });

    it("is none with any file system or table that has a tool here", async () => {
      for (const [tool, ...args] of [
        ["mkfs.ext4", "-q", "-F"],
        ["mkfs.btrfs", "-q", "-f"],
        ["mkswap"],
      ] as const) {
        if (spawnSync(tool, [...args, device]).status !== 0) continue;
        assert.equal(await isZeroWhereMarked(device, limit), false, tool);
        spawnSync("wipefs", ["--all", "--quiet", device]);
      }
    });
  },
);
