/** Staging and publishing a blank device through the CSI plugin, against the commands that do it by hand. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openPlugin } from "./csi-fixture.js";
import type { Plugin } from "./csi-fixture.js";
import { onEnd } from "./fixture.js";
import { alternate, figure, median } from "./measure.js";
import type { Figure, Say } from "./measure.js";

const ROUNDS = 5;
const TIMES = 5;
const SIZE_BYTES = 1024 ** 3;
const CAPABILITY = { mount: { fsType: "ext4" }, accessMode: { mode: "SINGLE_NODE_WRITER" } };

/** As a program would call it. */
async function command(file: string, ...args: readonly string[]): Promise<void> {
  const child = spawn(file, args, { stdio: "ignore" });
  const [code] = (await once(child, "exit")) as [number];
  if (code !== 0) throw new Error(`${file} ${args.join(" ")} failed`);
}

/** What is not measured, and must succeed. */
function aside(file: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${file} ${args.join(" ")}: ${stderr}`);
  return stdout.trim();
}

/** The device that an image appears as, the same way for both sides, before the time begins. */
function loopOn(image: string): string {
  const device = aside("losetup", "--find", "--show", "--direct-io=on", "--", image);
  // By the image: at the end its number may be somebody else's.
  onEnd(() => {
    const { stdout } = spawnSync("losetup", ["--noheadings", "--output", "NAME", "-j", image]);
    const left = String(stdout).trim();
    if (left !== "") spawnSync("losetup", ["--detach", left]);
  });
  return device;
}

async function timed(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** @returns milliseconds of NodeStageVolume and NodePublishVolume */
async function throughPlugin({ call, folder }: Plugin, nodeId: string): Promise<number> {
  const [stagingTargetPath, targetPath] = [join(folder, "staging"), join(folder, "target")];
  mkdirSync(stagingTargetPath);
  const { volume } = await call("CreateVolume", {
    name: "bench",
    volumeCapabilities: [CAPABILITY],
    capacityRange: { requiredBytes: SIZE_BYTES },
  });
  const volumeId = volume?.volumeId;
  const use = { volumeId, volumeCapability: CAPABILITY };
  const { publishContext } = await call("ControllerPublishVolume", { ...use, nodeId });
  const image = publishContext?.["device"];
  if (image === undefined) throw new Error("the volume has no image");
  loopOn(image);
  const took = await timed(async () => {
    await call("NodeStageVolume", { ...use, stagingTargetPath });
    await call("NodePublishVolume", { ...use, stagingTargetPath, targetPath });
  });
  await call("NodeUnpublishVolume", { volumeId, targetPath });
  await call("NodeUnstageVolume", { volumeId, stagingTargetPath });
  await call("ControllerUnpublishVolume", { volumeId, nodeId });
  await call("DeleteVolume", { volumeId });
  rmdirSync(stagingTargetPath);
  return took;
}

async function byHand(folder: string): Promise<number> {
  const [image, from, to] = ["by-hand.raw", "from", "to"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const one of [from, to]) mkdirSync(one);
  writeFileSync(image, "");
  truncateSync(image, SIZE_BYTES);
  const device = loopOn(image);
  const took = await timed(async () => {
    await command("mkfs.ext4", "-q", device);
    await command("mount", device, from);
    await command("mount", "--bind", from, to);
  });
  for (const one of [to, from]) aside("umount", one);
  aside("losetup", "--detach", device);
  for (const one of [to, from]) rmdirSync(one);
  rmSync(image);
  return took;
}

async function several(act: () => Promise<number>): Promise<number> {
  const times: number[] = [];
  for (let count = 0; count < TIMES; count += 1) times.push(await act());
  return median(times);
}

/** The volume is an image, so that neither LVM nor a target of the kernel is needed. */
export async function csiStage(say: Say): Promise<Figure[]> {
  if (process.geteuid?.() !== 0) {
    say("only root can mount: not measured");
    return [];
  }
  const plugin = await openPlugin({ driver: "image", format: "raw" }, (root) => mkdirSync(root));
  const { nodeId = "" } = await plugin.call("NodeGetInfo");
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () => several(() => throughPlugin(plugin, nodeId)),
    () => several(() => byHand(plugin.folder)),
  );
  say(`staged ${median(sides.ours).toFixed(1)} ms, by hand ${median(sides.theirs).toFixed(1)} ms`);
  await plugin.stop();
  return [
    figure("CSI stage and publish of ext4, over mkfs, mount, bind mount", ratio, 1.3, "lower"),
  ];
}
