/** Exporting a block device through the kernel's target: iscsi-lio against targetcli doing the same. */
import { execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { EXPORTERS, SILENT, openExec, openFiles } from "@libstorage/server";
import type { Exporter, ExporterContext, Hold, VolumeRecord } from "@libstorage/server";
import { alternate, figure, median } from "../measure.js";
import type { Figure } from "../measure.js";

const ROUNDS = 5;
const LIMIT = 0.1;
const INITIATOR = "iqn.2026-01.local.bench:host";
const TARGET = "iqn.2026-01.local.bench:disk";

const execute = promisify(execFile);

/** A loop device, so that nothing else is needed in the machine. */
async function makeDevice(): Promise<string> {
  await execute("modprobe", ["-a", "loop", "target_core_mod", "iscsi_target_mod"]);
  await execute("truncate", ["-s", "64M", "/var/tmp/bench-lio"]);
  const { stdout } = await execute("losetup", ["-f", "--show", "/var/tmp/bench-lio"]);
  return stdout.trim();
}

function contextOf(): ExporterContext {
  return {
    signal: AbortSignal.timeout(3_600_000),
    exec: openExec({ log: SILENT }),
    files: openFiles(),
    log: SILENT,
    progress: () => {},
    service: "bench",
    libFolder: mkdtempSync(join(tmpdir(), "bench-lio-")),
  };
}

function volumeOf(device: string): VolumeRecord {
  return {
    id: "bench-000",
    name: "bench",
    sizeBytes: 64 * 1024 ** 2,
    type: "",
    availabilityZone: "",
    iops: 0,
    encrypted: false,
    fields: {},
    attachments: [],
    epoch: 1,
    source: { kind: "block", path: device },
  };
}

async function took(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** Names and numbers are chosen anew each time, as for each attachment. */
async function ours(exporter: Exporter, volume: VolumeRecord, context: ExporterContext) {
  const instanceID = { id: "host", driver: "bench", service: "" };
  let hold: Hold | undefined;
  const ms = await took(async () => {
    const facts = { hostName: "host", initiatorName: INITIATOR };
    const door = await exporter.plan(volume, { holder: instanceID, facts, epoch: 1 }, context);
    const attachment = { instanceID, ...door, status: "attached", epoch: 1, since: 0 };
    hold = { volume, attachment };
    await exporter.export(hold, context);
  });
  if (hold !== undefined) await exporter.unexport(hold, context);
  return ms;
}

async function targetcli(...lines: readonly string[]): Promise<void> {
  const child = execute("targetcli");
  child.child.stdin?.end(`${lines.join("\n")}\nexit\n`);
  await child;
}

/** In one session of targetcli, which is kind to it: a script would start one for each line. */
async function theirs(device: string): Promise<number> {
  const group = `/iscsi/${TARGET}/tpg1`;
  const ms = await took(() =>
    targetcli(
      `/backstores/block create name=bench dev=${device}`,
      `/iscsi create ${TARGET}`,
      `${group}/luns create /backstores/block/bench`,
      `${group}/acls create ${INITIATOR}`,
      `${group} set attribute authentication=0`,
      "saveconfig",
    ),
  );
  await targetcli(`/iscsi delete ${TARGET}`, "/backstores/block delete bench", "saveconfig");
  return ms;
}

export async function lioAgainstTargetcli(say: (text: string) => void): Promise<Figure[]> {
  const device = await makeDevice();
  // Targetcli does nothing without a system bus.
  await execute("mkdir", ["-p", "/run/dbus"]);
  await execute("dbus-daemon", ["--system", "--fork"]).catch(() => {});
  const module = EXPORTERS["iscsi-lio"];
  const context = contextOf();
  // Only the kernel's side counts here: any address of the machine will do.
  const config = { portals: ["127.0.0.1:3333"], chap: { mode: "none" } };
  const exporter = await module.open(v.parse(module.config, config), context);
  try {
    const volume = volumeOf(device);
    const sides = await alternate(
      ROUNDS,
      () => ours(exporter, volume, context),
      () => theirs(device),
    );
    say(
      `export: iscsi-lio ${Math.round(median(sides.ours))} ms, targetcli ${Math.round(median(sides.theirs))} ms`,
    );
    return [figure("iSCSI export by LIO, over targetcli", sides.ratio, LIMIT, "lower")];
  } finally {
    await exporter.close();
    await execute("losetup", ["-d", device]);
  }
}
