/** The CSI plugin as a process, over a server as a process: many volumes, and many callers at once. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { openPlugin } from "./csi-fixture.js";
import type { Plugin } from "./csi-fixture.js";
import { inParallel, residentMB } from "./docker-cases.js";
import { seedVolumes } from "./fixture.js";
import { figure, median } from "./measure.js";
import type { Figure, Say } from "./measure.js";

const MANY = 1_000;
const VOLUMES = 100;
const LISTS = 30;
const CAPABILITY = { mount: {}, accessMode: { mode: "SINGLE_NODE_WRITER" } };

async function many(say: Say): Promise<Figure[]> {
  const plugin = await openPlugin({ driver: "vfs" }, (root) => seedVolumes(root, MANY));
  const times: number[] = [];
  for (let count = 0; count < LISTS; count += 1) {
    const started = performance.now();
    const { entries } = await plugin.call("ListVolumes");
    if (entries?.length !== MANY) throw new Error(`${entries?.length} volumes`);
    times.push(performance.now() - started);
  }
  say(`ListVolumes of ${MANY} volumes: ${median(times).toFixed(1)} ms`);
  const memory = residentMB(plugin.process);
  await plugin.stop();
  return [figure("CSI plugin at 1,000 volumes: resident memory, MB", memory, 120, "lower")];
}

/** A volume's whole life, as an orchestrator has it. */
async function life({ call, folder }: Plugin, nodeId: string, index: number): Promise<void> {
  const stagingTargetPath = join(folder, `staging-${index}`);
  const targetPath = join(folder, `target-${index}`);
  mkdirSync(stagingTargetPath);
  const { volume } = await call("CreateVolume", {
    name: `bench-${index}`,
    volumeCapabilities: [CAPABILITY],
    capacityRange: { requiredBytes: 1024 ** 3 },
  });
  const volumeId = volume?.volumeId;
  const use = { volumeId, volumeCapability: CAPABILITY };
  await call("ControllerPublishVolume", { ...use, nodeId });
  await call("NodeStageVolume", { ...use, stagingTargetPath });
  await call("NodePublishVolume", { ...use, stagingTargetPath, targetPath });
  await call("NodeUnpublishVolume", { volumeId, targetPath });
  await call("NodeUnstageVolume", { volumeId, stagingTargetPath });
  await call("ControllerUnpublishVolume", { volumeId, nodeId });
  await call("DeleteVolume", { volumeId });
  rmdirSync(stagingTargetPath);
}

async function parallel(say: Say): Promise<Figure[]> {
  const plugin = await openPlugin({ driver: "vfs" }, (root) => seedVolumes(root, 0));
  const { nodeId = "" } = await plugin.call("NodeGetInfo");
  const started = performance.now();
  const failed = await inParallel(VOLUMES, (index) => life(plugin, nodeId, index));
  say(`${VOLUMES} lives of volumes in ${(performance.now() - started).toFixed(0)} ms`);
  const { entries = [] } = await plugin.call("ListVolumes");
  const table = readFileSync("/proc/self/mountinfo", "utf8");
  const mounted = table.split("\n").filter((line) => line.includes(` ${plugin.folder}/`)).length;
  const paths = readdirSync(plugin.folder).filter((name) => /^(?:staging|target)-/.test(name));
  await plugin.stop();
  const left = entries.length + mounted + paths.length;
  return [
    figure("CSI: 100 volumes by 16 callers, calls that failed", failed, 0, "lower"),
    figure("CSI: 100 volumes by 16 callers, volumes, mounts and paths left", left, 0, "lower"),
  ];
}

/** The CSI plugin; only root can mount. */
export async function csiPlugin(say: Say): Promise<Figure[]> {
  if (process.geteuid?.() !== 0) {
    say("only root can mount: not measured");
    return many(say);
  }
  return [...(await many(say)), ...(await parallel(say))];
}
