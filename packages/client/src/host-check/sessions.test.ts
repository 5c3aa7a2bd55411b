/** Leftovers of iSCSI: a /sys of Debian 12 made for it, and records of connections; the tools are stand-ins. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { runCommand } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import { checkHost } from "./index.js";
import type { Finding } from "./index.js";

const OURS = "iqn.2026-01.io.libstorage:server:disks:v:1-68cd3fc6";
const FOREIGN = "iqn.2026-01.local.foreign:disk";
const WWID = "36001405111111112222333344445555a";

describe("host check, of what iSCSI leaves", () => {
  let folder: string;
  let commands: string[];

  const at = (path: string): string => join(folder, "sys", path);
  const write = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(at(path)), { recursive: true });
    await writeFile(at(path), text);
  };
  const devicesOf = (number: number): string => `devices/platform/host${number}/session${number}`;

  async function session(number: number, target: string): Promise<void> {
    const own = `${devicesOf(number)}/iscsi_session/session${number}`;
    await write(`${own}/targetname`, `${target}\n`);
    await write(`${own}/state`, "LOGGED_IN\n");
    await mkdir(at("class/iscsi_session"), { recursive: true });
    await symlink(at(own), at(`class/iscsi_session/session${number}`));
    await symlink(at(devicesOf(number)), at(`${own}/device`));
  }
  async function disk(number: number, lun: number, name: string): Promise<void> {
    const address = `${number}:0:0:${lun}`;
    const device = `${devicesOf(number)}/target${number}:0:0/${address}`;
    await write(`${device}/type`, "0\n");
    await mkdir(at(`${device}/block/${name}`), { recursive: true });
    // No device of this host has such a number.
    await write(`class/block/${name}/dev`, `4000:${lun}\n`);
  }
  /** A map of multipath. @param paths its disks */
  async function map(name: string, wwid: string, paths: readonly string[]): Promise<void> {
    await write(`class/block/${name}/dm/uuid`, `mpath-${wwid}\n`);
    await write(`class/block/${name}/dm/name`, `map-of-${name}\n`);
    await mkdir(at(`class/block/${name}/slaves`), { recursive: true });
    for (const path of paths) await write(`class/block/${name}/slaves/${path}`, "");
  }

  const tools: Exec = async (file, args, options) => {
    const isTool = ["iscsiadm", "tee", "blockdev", "multipath"].includes(file);
    if (!isTool) return runCommand(file, args, options);
    commands.push([file, ...args].join(" ").replace(`${at("")}/`, ""));
    if (file === "iscsiadm" && args.includes("--logout"))
      await rm(at("class/iscsi_session/session1"), { force: true });
    return { stdout: "", stderr: "" };
  };

  async function check(isFixing = false): Promise<string[]> {
    const findings: Finding[] = await checkHost(
      {
        executors: {
          config: new ScopedConfig([new ConfigTree({})]),
          libFolder: join(folder, "lib"),
          hostName: "host-a",
          isRoot: true,
          exec: tools,
          places: { sys: at(""), dev: join(folder, "dev"), iscsi: [join(folder, "iscsi")] },
        },
        mountPath: join(folder, "mounts"),
        signal: new AbortController().signal,
        attachments: async () => ({ known: true, volumeIDs: new Set(["v"]) }),
        giveBack: () => undefined,
      },
      isFixing,
    );
    return findings
      .filter(({ kind }) => kind !== "lock-file")
      .map(({ kind, what, state, next }) =>
        state === "left" ? `${kind} ${what} left: ${next}` : `${kind} ${what} ${state}`,
      );
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "leftovers-"));
    commands = [];
    const records = join(folder, "lib/connections/test/disks");
    await mkdir(records, { recursive: true });
    const fields = {
      exporter: "iscsi-lio",
      iqn: OURS,
      portals: "10.0.0.1:3260",
      lun: "1",
      wwid: WWID,
    };
    const device = `/dev/disk/by-id/wwn-0x${WWID.slice(1)}`;
    const record = { version: 1, volumeID: "v", driver: "lvm-iscsi", device, fields };
    await writeFile(join(records, "v.json"), JSON.stringify(record));
    await session(1, OURS);
    await session(2, FOREIGN);
    await disk(2, 7, "sdz");
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("the connection as it should be is none, nor is another's session", async () => {
    await disk(1, 1, "sdb");
    await map("dm-0", WWID, ["sdb"]);
    await map("dm-1", "3600140500000000000000000000000ff", []);
    assert.deepEqual(await check(true), []);
    assert.deepEqual(commands, []);
  });

  it("stale-scsi-device: a disk of no known volume in a session of ours is removed", async () => {
    await disk(1, 1, "sdb");
    await disk(1, 2, "sdc");
    const stale = `stale-scsi-device sdc (LUN 2 of ${OURS})`;
    assert.deepEqual(await check(), [`${stale} found`]);
    assert.deepEqual(commands, []);
    assert.deepEqual(await check(true), [`${stale} fixed`]);
    const deleted = `tee -- ${devicesOf(1)}/target1:0:0/1:0:0:2/delete`;
    assert.deepEqual(commands, ["blockdev --flushbufs /dev/sdc", deleted]);
  });

  it("stale-scsi-device: one that is used is left, with the name of its user", async () => {
    await disk(1, 1, "sdb");
    await disk(1, 2, "sdc");
    await write("class/block/sdc/holders/dm-5", "");
    await write("class/block/dm-5/dm/name", "somebodys\n");
    const [left = "", ...others] = await check(true);
    assert.match(
      left,
      /^stale-scsi-device sdc .*left: it is used by the device dm-5 \(somebodys\)/,
    );
    assert.deepEqual(others, []);
    assert.deepEqual(commands, []);
  });

  it("session-without-volume: a session of ours without any disk is ended", async () => {
    // What a target shows beside its disks is no volume.
    await write(`${devicesOf(1)}/target1:0:0/1:0:0:0/type`, "12\n");
    const empty = `session-without-volume session1 (${OURS})`;
    assert.deepEqual(await check(), [`${empty} found`]);
    assert.deepEqual(commands, []);
    assert.deepEqual(await check(true), [`${empty} fixed`]);
    const node = `iscsiadm --mode node --targetname ${OURS} --portal 10.0.0.1:3260`;
    assert.deepEqual(commands, [`${node} --logout`, `${node} --op delete`]);
    assert.ok(existsSync(at("class/iscsi_session/session2")));
  });

  it("multipath-leftover: a map over a volume of ours without any path is removed", async () => {
    await disk(1, 1, "sdb");
    await map("dm-0", WWID, []);
    await map("dm-1", "3600140500000000000000000000000ff", []);
    assert.deepEqual(await check(), ["multipath-leftover map-of-dm-0 (dm-0) found"]);
    assert.deepEqual(await check(true), ["multipath-leftover map-of-dm-0 (dm-0) fixed"]);
    assert.deepEqual(commands, ["multipath -f map-of-dm-0"]);
  });

  it("multipath-leftover: one that is used is left, with the name of its user", async () => {
    await disk(1, 1, "sdb");
    await map("dm-0", WWID, []);
    await write("class/block/dm-0/holders/dm-6", "");
    const [left = ""] = await check(true);
    assert.match(left, /^multipath-leftover map-of-dm-0 .*left: it is used by the device dm-6/);
    assert.deepEqual(commands, []);
  });
});
